"""Strangers' message properties, read as far as they can be read.

One that cannot be (a timestamp of 2**63, a name that is not UTF-8, tables in tables in tables) would raise
inside the library and cost the whole connection; the redelivery would cost the next one, for ever. Here it
is dropped.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from pamqp import decode
from pamqp.commands import Basic
from pamqp.header import ContentHeader

MAX_HEADER_BYTES = 16_384
"""Above this the headers are not read: decoding costs the square of their length (64 KiB: up to a second)."""
FIXED_PART = struct.Struct(">HHQ")


def salvage(data: bytes) -> Basic.Properties:
    """The properties of a content header that can be read by themselves, without the headers."""
    found = Basic.Properties()
    with suppress(struct.error, IndexError):
        (flags,) = struct.unpack_from(">H", data, FIXED_PART.size)
        rest = data[FIXED_PART.size + 2 :]
        for name in (n for n in found.attributes() if flags & found.flags[n]):
            kind = found.amqp_type(name)
            length = _length(kind, rest)
            if kind != "table":
                with suppress(Exception):  # whatever a stranger made of it
                    setattr(found, name, decode.by_type(rest[:length], kind)[1])
            rest = rest[length:]
    return found


def _length(kind: str, data: bytes) -> int:
    if kind == "shortstr":
        return 1 + data[0]
    if kind == "table":
        return 4 + int(struct.unpack_from(">I", data)[0])
    return 8 if kind == "timestamp" else 1


_read_strictly = ContentHeader.unmarshal


def _read_tolerantly(header: ContentHeader, data: bytes) -> None:
    if len(data) <= MAX_HEADER_BYTES:
        with suppress(Exception):  # OverflowError, UnicodeDecodeError, RecursionError, ...
            _read_strictly(header, data)
            return
    header.class_id, header.weight, header.body_size = FIXED_PART.unpack_from(data)
    header.properties = salvage(data)


def guard_decoding() -> None:
    """Make the library survive strangers' properties: the one place where it is changed instead of used."""
    setattr(ContentHeader, "unmarshal", _read_tolerantly)  # noqa: B010 - a plain assignment is a type error
