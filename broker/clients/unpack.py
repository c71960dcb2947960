"""Unpacks a gzip body without ever holding more of it than may be kept. Pure; knows no other encoding."""

from __future__ import annotations

import zlib
from contextlib import suppress


def unpacked(packed: bytes, limit: int) -> tuple[bytes, str | None]:
    """The body, at most `limit` bytes; or nothing, and a word for `Answered.flaw`."""
    unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
    with suppress(zlib.error):
        body = unpacking.decompress(packed, limit + 1)
        if len(body) > limit:
            return b"", "too-large"
        if unpacking.eof and not unpacking.unused_data:
            return body, None
    return b"", "encoding"
