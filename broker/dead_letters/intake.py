"""Distinguishes our letters (ids only) in a dead-letter queue from foreign messages, and seals the latter.

A foreign message is parsed once: ids and jobcenter code stay readable for searches, the citizen becomes a token, and
the rest is sealed for the ledger. Reads and writes no queue.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import UUID

from broker.dead_letters.headers import (
    FIELDS,
    JOBCENTER,
    LETTER_ID,
    LETTER_TYPE,
    REASON,
    TYPE,
    LetterProperties,
    class_of,
    death_cause,
    properties_of,
    sealed_properties,
)
from broker.ledger.dead_letters.places import ForeignMessage
from broker.rabbitmq import FetchedMessage
from broker.sealing import SealBroken, Sealer, Token
from schemas.personal import Cpr

MAX_PARSED_BYTES = 4 * 1024 * 1024
"""A longer body is sealed without being parsed, so that it cannot be found by its ids."""


class LetterReader:
    """Recognises our letters and seals foreign messages. Stateless."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def letter_id(self, message: FetchedMessage) -> UUID | None:
        """The id of one of our letters, which have no body; None for every other message."""
        arrival = message.arrival
        if arrival.body or arrival.type != LETTER_TYPE:
            return None
        return _uuid(arrival.headers.get(LETTER_ID))

    def foreign(self, message: FetchedMessage) -> ForeignMessage:
        """A message that the ledger does not know, sealed: published by publisher.py, or by another program."""
        return self._from_publisher(message) or self._from_elsewhere(message)

    def _from_publisher(self, message: FetchedMessage) -> ForeignMessage | None:
        arrival = message.arrival
        letter_id = _uuid(arrival.headers.get(LETTER_ID))
        if letter_id is None:
            return None
        # Only a process with our keys can make a seal that opens.
        try:
            body = self._sealer.open(arrival.body, of=str(letter_id), field="body")
            sealed = sealed_properties(arrival)
            plain = self._sealer.open(sealed, of=str(letter_id), field="properties") if sealed else None
        except SealBroken:
            return None
        cause = str(arrival.headers.get(REASON, "unknown"))
        fields = str(arrival.headers.get(FIELDS, "")) or None
        properties = LetterProperties.from_json(plain) if plain else None
        return self._sealed(letter_id, arrival.queue, cause, body, properties, fields)

    def _from_elsewhere(self, message: FetchedMessage) -> ForeignMessage:
        arrival = message.arrival
        properties = properties_of(arrival, message.exchange, message.routing_key)
        content = b"\0".join(
            (arrival.queue.encode(), (arrival.message_id or "").encode(), properties.to_json(), arrival.body)
        )
        # Derived from the content, so that a message that is read twice (crash before its ack) is one letter.
        letter_id = UUID(bytes=self._token(content, "letter").digest[:16], version=4)
        return self._sealed(letter_id, arrival.queue, death_cause(arrival), arrival.body, properties)

    def _sealed(
        self,
        letter_id: UUID,
        queue: str,
        cause: str,
        body: bytes,
        properties: LetterProperties | None,
        fields: str | None = None,
    ) -> ForeignMessage:
        content = _parsed(body)
        type_ = properties.type if properties else None
        return ForeignMessage(
            source_id=letter_id,
            queue=queue,
            cause=cause,
            cause_class=class_of(cause),
            type=type_ if type_ and len(type_) < 100 and TYPE.fullmatch(type_) else None,
            fields=fields,
            request_id=_uuid(content.get("requestId")),
            jobcenter_code=_jobcenter(content.get("jobcenterkode")),
            citizen=self._citizen(content.get("cpr")),
            body=self._sealer.seal(body, of=str(letter_id), field="body"),
            properties=self._sealer.seal(properties.to_json(), of=str(letter_id), field="properties")
            if properties
            else None,
            same=self._token(queue.encode() + b"\0" + body, "same-letter"),
        )

    def _token(self, value: bytes, purpose: str) -> Token:
        return self._sealer.token(hashlib.sha256(value).digest(), purpose=purpose)

    def _citizen(self, cpr: object) -> Token | None:
        try:
            number = Cpr(cpr).reveal() if isinstance(cpr, str) else None
        except ValueError:
            return None
        return self._sealer.token(number.encode(), purpose="citizen") if number else None


def _parsed(body: bytes) -> dict[str, Any]:
    """The fields of a JSON object; empty if the body is not one."""
    try:
        content = json.loads(body) if len(body) <= MAX_PARSED_BYTES else None
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _uuid(text: object) -> UUID | None:
    try:
        return UUID(text) if isinstance(text, str) and len(text) == 36 else None
    except ValueError:
        return None


def _jobcenter(code: object) -> str | None:
    return code if isinstance(code, str) and JOBCENTER.fullmatch(code) else None
