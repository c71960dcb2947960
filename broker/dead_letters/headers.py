"""Dead letters on the wire: their headers, the classes of their causes, and which message properties are kept.

Pure. A letter in a dead-letter queue contains ids only; message bodies and properties are sealed before they are
stored. The queues are read in reconcile.py; the ledger's side is broker/ledger/dead_letters/.
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
ROTATION = "x-jobnet-pass"
"""Number of the rotation that published this letter."""
PROPERTIES = "x-jobnet-properties"
"""Sealed properties, in base64, of a message whose sealed body is the letter's body."""

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
    "answered-otherwise": "moment",
    "maxlen": "moment",
}
"""What is wrong: the message, the moment or the setup. Every other cause (crash, bug, delivery-limit) is `ours`."""


def class_of(cause: str) -> str:
    """The class of a cause: message, moment, setup or ours."""
    return CLASSES.get(cause, "ours")


@dataclass(frozen=True, slots=True)
class LetterProperties:
    """The properties that a replay publishes again with the message. Contains personal data: store it sealed only."""

    type: str | None = None
    content_type: str | None = None
    correlation_id: str | None = field(default=None, repr=False)
    reply_to: str | None = field(default=None, repr=False)
    headers: dict[str, Any] = field(default_factory=dict, repr=False)
    exchange: str = ""
    routing_key: str = field(default="", repr=False)

    def to_json(self) -> bytes:
        """The plain text to be sealed."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> LetterProperties:
        """Read what `to_json` returned."""
        return cls(**json.loads(data))


MOST_HEADERS = 4096
"""Bytes of headers that are kept; sealed and in base64 they must leave room for the letter's own headers."""


def properties_of(arrival: Arrival, exchange: str = "", routing_key: str = "") -> LetterProperties:
    """The properties of an arrival, without the headers that RabbitMQ or the broker added.

    If the headers are longer than `MOST_HEADERS`, only the traceparent is kept.
    """
    headers = {name: value for name, value in arrival.headers.items() if _is_senders(name, value)}
    if len(json.dumps(headers)) > MOST_HEADERS:
        headers = {
            name: value for name, value in headers.items() if name == "traceparent" and len(str(value)) < 100
        }
    return LetterProperties(
        type=arrival.type,
        content_type=arrival.content_type,
        correlation_id=arrival.correlation_id,
        reply_to=arrival.reply_to,
        headers=headers,
        exchange=exchange,
        routing_key=routing_key,
    )


# RabbitMQ before 4.0.1 drops a message that is published with a copied x-death header (docs/rabbitmq.md#t12).
ADDED_HEADERS = ("x-jobnet-", "x-death", "x-first-death", "x-last-death", "x-delivery", "x-acquired")


def _is_senders(name: str, value: object) -> bool:
    return not name.startswith(ADDED_HEADERS) and isinstance(value, str | int | float | bool)


def properties_header(sealed: bytes) -> dict[str, str]:
    """The header that contains the sealed properties beside a sealed body."""
    return {PROPERTIES: base64.b64encode(sealed).decode()}


def sealed_properties(arrival: Arrival) -> bytes | None:
    """The bytes that `properties_header` wrote; None if the header is missing or damaged."""
    text = arrival.headers.get(PROPERTIES)
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except ValueError:
        return None


def death_cause(arrival: Arrival) -> str:
    """Why RabbitMQ put a message into a dead-letter queue: `unrouted`, RabbitMQ's own reason, or `unknown`."""
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
