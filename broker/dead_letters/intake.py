"""Tells letters of ours in a dead-letter queue from messages of strangers, and seals the latter for the ledger.

A stranger's message is looked at once: its ids and jobcenter code for searching, its citizen as a token; all else is
sealed. Judges nothing, reads and writes no queue.
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

MOST_LOOKED_AT = 4 * 1024 * 1024
"""A longer body is sealed as it is: what it says cannot be searched."""


class LetterReader:
    """Tells our letters from strangers' messages, and seals the latter. Keeps nothing."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def own(self, drawn: FetchedMessage) -> UUID | None:
        """The id of a letter of ours, which has no body; None for everything else."""
        arrival = drawn.arrival
        if arrival.body or arrival.type != LETTER_TYPE:
            return None
        return _uuid(arrival.headers.get(LETTER_ID))

    def stranger(self, drawn: FetchedMessage) -> ForeignMessage:
        """A message that the ledger does not know, sealed: one that we put there ourselves, or anybody's."""
        return self._put_aside(drawn) or self._found(drawn)

    def _put_aside(self, drawn: FetchedMessage) -> ForeignMessage | None:
        """Written by publishing.py: the seal proves that, and nobody else can make one."""
        arrival = drawn.arrival
        letter_id = _uuid(arrival.headers.get(LETTER_ID))
        if letter_id is None:
            return None
        try:
            body = self._sealer.open(arrival.body, of=str(letter_id), field="body")
            kept = sealed_properties(arrival)
            known = self._sealer.open(kept, of=str(letter_id), field="properties") if kept else None
        except SealBroken:
            return None
        cause = str(arrival.headers.get(REASON, "unknown"))
        fields = str(arrival.headers.get(FIELDS, "")) or None
        properties = LetterProperties.from_json(known) if known else None
        return self._sealed(letter_id, arrival.queue, cause, body, properties, fields)

    def _found(self, drawn: FetchedMessage) -> ForeignMessage:
        """Its id is made of all that it is, so that a message read twice (a crash before its ack) is one letter."""
        arrival = drawn.arrival
        properties = properties_of(arrival, drawn.exchange, drawn.routing_key)
        whole = b"\0".join(
            (arrival.queue.encode(), (arrival.message_id or "").encode(), properties.to_json(), arrival.body)
        )
        letter_id = UUID(bytes=self._token(whole, "letter").digest[:16], version=4)
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
        glance = _glance(body)
        type_ = properties.type if properties else None
        return ForeignMessage(
            source_id=letter_id,
            queue=queue,
            cause=cause,
            cause_class=class_of(cause),
            type=type_ if type_ and len(type_) < 100 and TYPE.fullmatch(type_) else None,
            fields=fields,
            request_id=_uuid(glance.get("requestId")),
            jobcenter_code=_jobcenter(glance.get("jobcenterkode")),
            citizen=self._citizen(glance.get("cpr")),
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


def _glance(body: bytes) -> dict[str, Any]:
    """The fields of a body that can be read at all; what is broken has none."""
    try:
        content = json.loads(body) if len(body) <= MOST_LOOKED_AT else None
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
