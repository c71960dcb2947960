"""Reconciliation: makes every dead-letter queue in RabbitMQ match the ledger (docs/architecture.md#dead-letters).

If a queue and the ledger agree, only missing letters are published. Otherwise the queue is rotated: every message is
read once; what belongs there is published again at the end of the queue, the rest is dropped. A foreign message (the
ledger does not know it) is first committed to the ledger, sealed. Replaying is replayer.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from broker.dead_letters.headers import KIND, LETTER_ID, LETTER_TYPE, QUEUE, REASON, ROTATION
from broker.dead_letters.intake import LetterReader
from broker.errors import BrokerError
from broker.ledger.dead_letters.places import ForeignMessage, KnownLetter, Places, QueueBalance
from broker.rabbitmq import (
    DeclareRefused,
    FetchedMessage,
    Outgoing,
    Published,
    QueueReader,
    open_queue_reader,
)
from broker.sealing import Sealer
from broker.telemetry.log import get_logger
from config.settings import Settings

log = get_logger("dead_letters")

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Limit on bodies in memory: a batch ends with the message that exceeds this."""
MISSING_AT_A_TIME = 2000
"""How many missing letters are read from the ledger in one query."""
MAX_ROTATION_AGE_S = 600.0
"""A queue is rotated at least this often, even if the counts agree."""


class QueueRefuses(BrokerError):
    """A dead-letter queue does not accept messages: it is full, or it does not exist."""


@dataclass(slots=True)
class ReconcileResult:
    """Counts of one reconciliation.

    `read`: messages read; `published`: missing letters published; `dropped`: messages removed from a queue;
    `imported`: foreign messages committed to the ledger; `queues`: queues that match now; `refused`: queues that
    could not be reconciled.
    """

    read: int = 0
    published: int = 0
    dropped: int = 0
    imported: int = 0
    queues: int = 0
    refused: int = 0


class Reconciler:
    """Runs reconciliations. Every process may call `reconcile` at any time."""

    def __init__(self, settings: Settings, places: Places, sealer: Sealer) -> None:
        self._rabbitmq = settings.rabbitmq
        self._batch_size = settings.dead.pass_batch
        self._places = places
        self._letters = LetterReader(sealer)

    async def reconcile(self, queues: Collection[str], *, rotate: bool = False) -> ReconcileResult | None:
        """Reconcile `queues` and every queue that the ledger knows; None while another process does it.

        `rotate`: rotate every queue, even if the counts agree. Raises LedgerAway, RabbitAway; the next run does the
        rest.
        """
        async with self._places.exclusive() as exclusive:
            if not exclusive:
                return None
            result = ReconcileResult()
            balances = await self._places.balances()
            async with open_queue_reader(self._rabbitmq, "jobnet-broker dead letters") as reader:
                reconciliation = _Reconciliation(
                    reader, self._places, self._letters, result, self._batch_size
                )
                for queue in sorted({*queues, *balances}):
                    await reconciliation.reconcile_queue(balances.get(queue) or QueueBalance(queue), rotate)
        if result.published or result.dropped or result.imported:
            count = result.published + result.dropped + result.imported
            log.info("dead-letters-reconciled", count=count, what=str(result))
        return result


def must_rotate(balance: QueueBalance, depth: int) -> bool:
    """Whether the queue may contain something else than the ledger assumes."""
    if balance.rotating or balance.gone or depth != balance.placed:
        return True
    # Equal counts do not prove equal letters: a person may have taken one out while another message came in.
    return balance.rotated_ago > MAX_ROTATION_AGE_S


@dataclass(frozen=True, slots=True)
class _Batch:
    """Messages read in one step. `last`: the queue is empty, or this rotation's own messages have come up."""

    messages: list[FetchedMessage]
    last: bool


@dataclass(frozen=True, slots=True)
class _Reconciliation:
    """One run over the queues, on one channel."""

    reader: QueueReader
    places: Places
    letters: LetterReader
    result: ReconcileResult
    batch_size: int

    async def reconcile_queue(self, balance: QueueBalance, rotate: bool) -> None:
        try:
            depth = await self.reader.depth(balance.queue)
            rotate = rotate or must_rotate(balance, depth)
            if rotate:
                await self.rotate_queue(balance.queue, depth)
            if rotate or balance.missing:
                await self.publish_missing(balance.queue)
            self.result.queues += 1
        # A queue that does not exist or is full must not stop the others.
        except (DeclareRefused, QueueRefuses) as error:
            self.result.refused += 1
            log.error("dead-letter-queue-refuses", queue=balance.queue, reason=f"{error!s:.300}")

    async def rotate_queue(self, queue: str, depth: int) -> None:
        """Read, sort, publish what stays (confirmed), acknowledge: `depth` messages. The only ack in this file.

        A crash between two steps leaves copies, which the next rotation removes; it loses nothing.
        """
        rotation = await self.places.begin_rotation(queue)
        left = depth  # messages that arrive meanwhile are left for the next run
        while left > 0:
            batch = await self._read(queue, rotation, min(left, self.batch_size))
            staying = await self._sort(queue, rotation, batch)
            await self._publish(staying, queue, rotation)
            for message in batch.messages:
                await self.reader.ack(message)
            self.result.dropped += len(batch.messages) - len(staying)
            left = 0 if batch.last else left - len(batch.messages)
        await self.places.end_rotation(queue, rotation)

    async def publish_missing(self, queue: str) -> None:
        """Publish the letters that have no place in the queue, and record their places after that."""
        while missing := await self.places.missing(queue, MISSING_AT_A_TIME):
            for start in range(0, len(missing), self.batch_size):
                letters = missing[start : start + self.batch_size]
                await self._publish(letters, queue)
                await self.places.record_placed(queue, [letter.letter_id for letter in letters])
                self.result.published += len(letters)

    async def _read(self, queue: str, rotation: int, most: int) -> _Batch:
        messages: list[FetchedMessage] = []
        size = 0
        while len(messages) < most and size < MAX_BATCH_BYTES:
            message = await self.reader.get(queue)
            if message is None:  # a person took messages out meanwhile
                return _Batch(messages, last=True)
            messages.append(message)
            size += len(message.arrival.body)
            if self._published_by(rotation, message):
                return _Batch(messages, last=True)
        return _Batch(messages, last=False)

    async def _sort(self, queue: str, rotation: int, batch: _Batch) -> list[KnownLetter]:
        """The letters that stay in the queue. Foreign messages are committed to the ledger here."""
        ids: dict[UUID, None] = {}
        foreign: list[ForeignMessage] = []
        published_before: list[KnownLetter] = []
        for message in batch.messages:
            letter_id = self.letters.letter_id(message)
            if letter_id is None:
                foreign.append(self.letters.foreign(message))
            elif self._published_by(rotation, message):
                published_before.append(_letter_from(letter_id, message))
            else:
                ids[letter_id] = None
        if foreign:
            ids |= dict.fromkeys(await self.places.import_messages(foreign))
        kept = await self.places.keep(queue, rotation, list(ids)) if ids else []
        self.result.read += len(batch.messages)
        self.result.imported += len(foreign)
        return [*kept, *published_before]

    def _published_by(self, rotation: int, message: FetchedMessage) -> bool:
        same = message.arrival.headers.get(ROTATION) == rotation
        return same and self.letters.letter_id(message) is not None

    async def _publish(self, letters: Iterable[KnownLetter], queue: str, rotation: int | None = None) -> None:
        """Publish letters and wait for all confirms. Raises QueueRefuses, RabbitAway."""
        outs = [letter_of(letter, queue, rotation) for letter in letters]
        results = await asyncio.gather(*(self.reader.put(out) for out in outs), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            if result is not Published.CONFIRMED:
                raise QueueRefuses(f"{queue} does not accept letters ({result.value})")


def _letter_from(letter_id: UUID, message: FetchedMessage) -> KnownLetter:
    headers = message.arrival.headers
    return KnownLetter(letter_id, str(headers.get(KIND, "")), str(headers.get(REASON, "")))


def letter_of(letter: KnownLetter, queue: str, rotation: int | None = None) -> Outgoing:
    """The message that stands for a letter in its queue: ids only."""
    headers: dict[str, Any] = {
        LETTER_ID: str(letter.letter_id),
        KIND: letter.kind,
        REASON: letter.cause,
        QUEUE: queue.removesuffix(".dead"),
    }
    if rotation is not None:
        headers[ROTATION] = rotation
    return Outgoing("", queue, b"", LETTER_TYPE, headers=headers)
