"""One-time login links, signed with the broker's token key and valid for some minutes (ADR 13).

The command that issues a link needs no connection to the console. Used links are remembered until they expire. Links
issued before the console started are refused, because they may have been used then.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from broker.console.rights import ROLES
from broker.errors import BrokerError
from broker.sealing import KeyMissing, Sealer, Token

PURPOSE = "console-link"
MOST_USED = 1000
MOST_LINK = 2000


class LinkRefused(BrokerError):
    """The link is forged, used or expired."""

    def __init__(self) -> None:
        super().__init__("this link cannot be used: a link works once, and only for some minutes")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a link offers: a session for `name` with `roles`."""

    name: str
    roles: tuple[str, ...]
    at: float
    nonce: str


def issue(sealer: Sealer, name: str, roles: tuple[str, ...], clock: Callable[[], float] = time.time) -> str:
    """The last part of a new link's address."""
    facts = [name, list(roles), clock(), secrets.token_urlsafe(16)]
    payload = json.dumps(facts, separators=(",", ":")).encode()
    signed = sealer.token(payload, purpose=PURPOSE)
    return f"{_text(payload)}.{signed.key_id}.{_text(signed.digest)}"


class Links:
    """Verifies links and accepts each once."""

    def __init__(self, sealer: Sealer, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._sealer, self._seconds, self._clock = sealer, seconds, clock
        self._started = clock()
        self._used: dict[str, float] = {}

    def verify(self, text: str) -> Offer:
        """What the link offers, without using it up. Raises LinkRefused."""
        offer, now = self._read(text), self._clock()
        fresh = self._started <= offer.at <= now < offer.at + self._seconds
        if not fresh or offer.nonce in self._used or not set(offer.roles) <= set(ROLES):
            raise LinkRefused
        return offer

    def redeem(self, text: str) -> Offer:
        """Use the link up. Raises LinkRefused."""
        offer, now = self.verify(text), self._clock()
        self._used = {nonce: until for nonce, until in self._used.items() if until > now}
        if len(self._used) >= MOST_USED:
            raise LinkRefused
        self._used[offer.nonce] = offer.at + self._seconds
        return offer

    def _read(self, text: str) -> Offer:
        try:
            payload_text, key_id, digest = text[:MOST_LINK].split(".")
            payload = _bytes(payload_text)
            if not self._sealer.token(payload, purpose=PURPOSE, key_id=key_id).same(
                Token(key_id, _bytes(digest))
            ):
                raise LinkRefused
            name, roles, at, nonce = json.loads(payload)
        except (ValueError, KeyMissing):
            raise LinkRefused from None
        return Offer(str(name), tuple(map(str, roles)), float(at), str(nonce))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
