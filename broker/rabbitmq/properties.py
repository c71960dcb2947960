"""Decodes message properties tolerantly: a property that cannot be decoded is dropped (docs/rabbitmq.md#t21).

Such a property (a timestamp of 2**63, a name that is not UTF-8, deeply nested tables) raises inside the library, which
closes the connection; the redelivery closes the next one, and so on. A correlation id is never dropped: the answer
carries it byte for byte, in the encoding that its sender chose.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from pamqp import decode
from pamqp.commands import Basic
from pamqp.header import ContentHeader

MAX_HEADER_BYTES = 16_384
"""Longer headers are dropped: decoding takes time with the square of their length (64 KiB: up to a second)."""
FIXED_PART = struct.Struct(">HHQ")
RAW_BYTES = "surrogateescape"
"""How a correlation id is decoded and encoded: bytes that are not UTF-8 become surrogates and bytes again."""


def salvage(data: bytes) -> Basic.Properties:
    """The properties of a content header, decoded one by one, without a header table of many bytes."""
    properties = Basic.Properties()
    with suppress(struct.error, IndexError):
        (flags,) = struct.unpack_from(">H", data, FIXED_PART.size)
        rest = data[FIXED_PART.size + 2 :]
        for name in (n for n in properties.attributes() if flags & properties.flags[n]):
            kind = properties.amqp_type(name)
            length = _length(kind, rest)
            value = rest[:length]
            if name == "correlation_id":
                properties.correlation_id = value[1:].decode("utf-8", RAW_BYTES)
            elif kind != "table" or len(value) <= MAX_HEADER_BYTES:
                with suppress(Exception):  # a sender can cause any exception here
                    setattr(properties, name, decode.by_type(value, kind)[1])
            rest = rest[length:]
    return properties


def _length(kind: str, data: bytes) -> int:
    if kind == "shortstr":
        return 1 + data[0]
    if kind == "table":
        return 4 + int(struct.unpack_from(">I", data)[0])
    return 8 if kind == "timestamp" else 1


_decode_strictly = ContentHeader.unmarshal


def _decode_tolerantly(header: ContentHeader, data: bytes) -> None:
    if len(data) <= MAX_HEADER_BYTES:
        with suppress(Exception):  # OverflowError, UnicodeDecodeError, RecursionError, ...
            _decode_strictly(header, data)
            return
    header.class_id, header.weight, header.body_size = FIXED_PART.unpack_from(data)
    header.properties = salvage(data)


def guard_decoding() -> None:
    """Replace the library's decoder of properties. This is the only place where the library is patched."""
    setattr(ContentHeader, "unmarshal", _decode_tolerantly)  # noqa: B010 - a plain assignment is a type error
