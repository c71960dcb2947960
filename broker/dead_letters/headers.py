"""The words on dead letters: their headers, their causes and whose fault a cause is, and what is kept of a message.

Pure. What lies in a dead-letter queue carries ids only; bodies and properties of messages are sealed before they are
written down. Reading and turning the queues is handlers/dead_letters.py, their truth is ledger/letters.py.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

from broker.rabbitmq import Arrival

LETTER_TYPE = "letter.v1"
LETTER_ID = "x-jobnet-letter-id"
REASON = "x-jobnet-reason"
FIELDS = "x-jobnet-fields"
KIND = "x-jobnet-kind"
QUEUE = "x-jobnet-queue"
PASS = "x-jobnet-pass"  # noqa: S105  the number of a pass, not a secret
PROPERTIES = "x-jobnet-properties"
"""Sealed properties of a message whose sealed body is the letter's body, in base64."""

TYPE = re.compile(r"[a-z]+(\.[a-z]+)*\.v[0-9]{1,3}")
JOBCENTER = re.compile(r"[0-9]{5}")

CLASSES = {
    "invalid": "message",
    "no-reply-to": "message",
    "unrouted": "message",
    "unroutable": "setup",
    "unverified": "moment",
    "expired": "moment",
    "exhausted": "moment",
    "maxlen": "moment",
}
"""Whose fault: the message, the moment, the setup, or (everything else: crash, bug, delivery-limit) ours."""


def class_of(cause: str) -> str:
    """The class of a cause: message, moment, setup or ours."""
    return CLASSES.get(cause, "ours")


@dataclass(frozen=True, slots=True)
class LetterProperties:
    """What must survive of a message's properties, so that its replay is the same message. Personal: seal it."""

    type: str | None = None
    content_type: str | None = None
    correlation_id: str | None = field(default=None, repr=False)
    reply_to: str | None = field(default=None, repr=False)
    headers: dict[str, Any] = field(default_factory=dict, repr=False)
    exchange: str = ""
    routing_key: str = field(default="", repr=False)

    def to_json(self) -> bytes:
        """For sealing only."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> LetterProperties:
        """Reads `to_json` back."""
        return cls(**json.loads(data))


MOST_HEADERS = 4096
"""Bytes of headers that are kept: more, sealed and in base64, would make the letter's own headers unreadable."""


def properties_of(arrival: Arrival, exchange: str = "", routing_key: str = "") -> LetterProperties:
    """Of an arrival, without what RabbitMQ and we wrote on it: a copied x-death makes RabbitMQ drop the message.

    Of too many headers only the traceparent is kept.
    """
    theirs = {name: value for name, value in arrival.headers.items() if _is_theirs(name, value)}
    if len(json.dumps(theirs)) > MOST_HEADERS:
        theirs = {
            name: value for name, value in theirs.items() if name == "traceparent" and len(str(value)) < 100
        }
    return LetterProperties(
        type=arrival.type,
        content_type=arrival.content_type,
        correlation_id=arrival.correlation_id,
        reply_to=arrival.reply_to,
        headers=theirs,
        exchange=exchange,
        routing_key=routing_key,
    )


def _is_theirs(name: str, value: object) -> bool:
    ours = name.startswith(
        ("x-jobnet-", "x-death", "x-first-death", "x-last-death", "x-delivery", "x-acquired")
    )
    return not ours and isinstance(value, str | int | float | bool)


def properties_header(sealed: bytes) -> dict[str, str]:
    """The header in which sealed properties travel beside a sealed body."""
    return {PROPERTIES: base64.b64encode(sealed).decode()}


def sealed_properties(arrival: Arrival) -> bytes | None:
    """What `properties_header` wrote; None if it is missing or damaged."""
    text = arrival.headers.get(PROPERTIES)
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except ValueError:
        return None


def death_cause(arrival: Arrival) -> str:
    """Why RabbitMQ put it there: its own reason if it dead-lettered it, else that nothing took it."""
    if arrival.queue.startswith("jobnet.unrouted"):
        return "unrouted"
    reason = arrival.headers.get("x-first-death-reason")
    known = {
        "delivery_limit": "delivery-limit",
        "rejected": "rejected",
        "expired": "expired",
        "maxlen": "maxlen",
    }
    return known.get(str(reason), "unknown")
