"""Encrypts stored personal data (docs/privacy.md#sealing) and makes search tokens (docs/privacy.md#blind-index).

AES-256-GCM with one key for sealing and several for opening; the key id stands in the clear before the sealed bytes.
The business id and the field name are bound as associated data: sealed bytes moved to another row or field do not open.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretBytes

from broker.errors import BrokerError

VERSION = 1
NONCE_BYTES = 12
TAG_BYTES = 16


class Keys(Protocol):
    """The section `keys` of the settings."""

    @property
    def sealing(self) -> Mapping[str, SecretBytes]: ...
    @property
    def seal_with(self) -> str: ...
    @property
    def tokens(self) -> Mapping[str, SecretBytes]: ...
    @property
    def token_order(self) -> tuple[str, ...]: ...


class SealBroken(BrokerError):
    """Sealed bytes cannot be opened: damaged, moved from another row or field, or their key is missing."""


class KeyMissing(SealBroken):
    """The id of a key in stored data is not among the configured keys; `key_id` has it."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key {key_id!r} is configured")
        self.key_id = key_id


@dataclass(frozen=True, slots=True)
class Token:
    """A blind-index token: the keyed hash of a personal value, and the id of its key. Compare with `same`."""

    key_id: str
    digest: bytes

    def __repr__(self) -> str:
        return f"Token({self.key_id!r}, **********)"

    def same(self, other: Token) -> bool:
        """Whether both have the same key and value; compares in constant time."""
        return self.key_id == other.key_id and hmac.compare_digest(self.digest, other.digest)


class Sealer:
    """Seals, opens and makes tokens with one set of keys.

    Random nonces allow 2**32 seals per key (NIST SP 800-38D, 8.3), which is many years of Jobnet's traffic. Add a new
    sealing key long before, and remove an old one only when no stored data names it.
    """

    def __init__(self, keys: Keys) -> None:
        self._ciphers = {name: AESGCM(key.get_secret_value()) for name, key in keys.sealing.items()}
        self._tokens = {name: keys.tokens[name].get_secret_value() for name in keys.token_order}
        self._header = _header(keys.seal_with)
        self._sealing = self._ciphers[keys.seal_with]
        self.oldest_token_key = keys.token_order[0]
        self.newest_token_key = keys.token_order[-1]

    def __repr__(self) -> str:
        return f"Sealer(sealing={sorted(self._ciphers)}, tokens={list(self._tokens)})"

    def seal(self, plain: bytes, *, of: str, field: str) -> bytes:
        """`plain`, sealed for the business id `of` (a requestId or reportId) and this field only."""
        nonce = os.urandom(NONCE_BYTES)
        return (
            self._header + nonce + self._sealing.encrypt(nonce, plain, _associated(self._header, of, field))
        )

    def open(self, sealed: bytes, *, of: str, field: str) -> bytes:
        """The bytes that were sealed for this id and field. Raises SealBroken, or its subclass KeyMissing."""
        header = sealed[: 2 + sealed[1]] if len(sealed) > 1 else b""
        body = sealed[len(header) :]
        if sealed[:1] != bytes([VERSION]) or len(body) < NONCE_BYTES + TAG_BYTES:
            raise SealBroken(f"{field}: not sealed by the broker")
        try:
            return self._cipher(header).decrypt(
                body[:NONCE_BYTES], body[NONCE_BYTES:], _associated(header, of, field)
            )
        except InvalidTag:
            raise SealBroken(f"{field}: damaged, or moved from another place") from None

    def _cipher(self, header: bytes) -> AESGCM:
        key_id = header[2:].decode("ascii", "replace")
        if key_id not in self._ciphers:
            raise KeyMissing(key_id)
        return self._ciphers[key_id]

    def token(self, value: bytes, *, purpose: str, key_id: str | None = None) -> Token:
        """HMAC-SHA256 of `value` for one purpose ("citizen", "business"), with the newest or the given key.

        Raises KeyMissing.
        """
        key_id = key_id or self.newest_token_key
        if key_id not in self._tokens:
            raise KeyMissing(key_id)
        return Token(key_id, hmac.digest(self._tokens[key_id], _sized(purpose) + value, "sha256"))

    def all_tokens(self, value: bytes, *, purpose: str) -> tuple[Token, ...]:
        """The tokens of `value` under every key, newest first; a search must look for all of them."""
        return tuple(self.token(value, purpose=purpose, key_id=key_id) for key_id in reversed(self._tokens))


def _header(key_id: str) -> bytes:
    name = key_id.encode("ascii")
    return bytes([VERSION, len(name)]) + name


def _associated(header: bytes, of: str, field: str) -> bytes:
    """The associated data. Lengths stand before the texts, so that no other id and field give the same bytes."""
    return header + _sized(of) + _sized(field)


def _sized(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">I", len(data)) + data
