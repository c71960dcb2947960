"""The pass that keeps every dead-letter queue in RabbitMQ true to the ledger (DESIGN 6, "Dead letters").

Where queue and ledger agree it publishes what is missing and is done. Otherwise it turns the queue round: each letter
is read once and published again at the end, confirmed, then acknowledged; what is no letter any more is only
acknowledged; what only RabbitMQ knew is committed to the ledger, sealed, before that. Nothing is nacked, what is in
memory at once is bounded, and a crash anywhere costs copies that the next pass removes. It replays nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from broker.dead_letters.headers import KIND, LETTER_ID, LETTER_TYPE, PASS, QUEUE, REASON
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

BYTES_AT_A_TIME = 4 * 1024 * 1024
"""Bodies in memory at once: a batch ends with the body that passes this."""
MISSING_AT_A_TIME = 2000
"""Ids of letters to be published that are read from the ledger at once."""
TURN_AT_LEAST_EVERY_S = 600.0
"""Equal numbers do not prove equal letters: a person may have taken one out while another came in."""


class QueueRefuses(BrokerError):
    """A dead-letter queue does not take letters: it is full, or it does not exist."""


@dataclass(slots=True)
class ReconcileResult:
    """What a pass did: letters read, published because missing, thrown away, taken into the ledger.

    `refused`: queues that it could not make true.
    """

    read: int = 0
    published: int = 0
    thrown: int = 0
    taken_in: int = 0
    queues: int = 0
    refused: int = 0


class Reconciler:
    """One process's hand in the pass. `pass_over` may be called by every process at any time."""

    def __init__(self, settings: Settings, places: Places, sealer: Sealer) -> None:
        self._rabbitmq = settings.rabbitmq
        self._batch = settings.dead.pass_batch
        self._places = places
        self._reader = LetterReader(sealer)

    async def pass_over(self, queues: Collection[str], *, turn: bool = False) -> ReconcileResult | None:
        """One pass over `queues` and all that the ledger knows; None if another process is at it.

        `turn`: turn every queue round, whatever the numbers say. Raises LedgerAway, RabbitAway; what is left then
        is done by the next pass.
        """
        async with self._places.only_one() as mine:
            if not mine:
                return None
            done = ReconcileResult()
            standings = await self._places.standings()
            async with open_queue_reader(self._rabbitmq, "jobnet-broker dead letters") as opened:
                for queue in sorted({*queues, *standings}):
                    standing = standings.get(queue) or QueueBalance(queue, 0, 0, 0, 0, False, float("inf"))
                    await self._one_queue(
                        _Turn(opened, self._places, self._reader, done, self._batch), standing, turn
                    )
        if done.published or done.thrown or done.taken_in:
            log.info("dead-letters", count=done.published + done.thrown + done.taken_in, what=str(done))
        return done

    @staticmethod
    async def _one_queue(at: _Turn, standing: QueueBalance, turn: bool) -> None:
        """A queue that does not exist or is full must not keep the others from being made true."""
        try:
            depth = await at.queue_reader.depth(standing.queue)
            if turn or must_turn(standing, depth):
                await at.turn_round(standing.queue, depth)
                await at.lay_missing(standing.queue)
            elif standing.missing:
                await at.lay_missing(standing.queue)
            at.done.queues += 1
        except (DeclareRefused, QueueRefuses) as no:
            at.done.refused += 1
            log.error("dead-letter-queue-refuses", queue=standing.queue, reason=f"{no!s:.300}")


def must_turn(standing: QueueBalance, depth: int) -> bool:
    """Whether the queue may hold something else than the ledger believes."""
    doubtful = standing.turning or standing.gone > 0 or depth != standing.placed
    return doubtful or standing.turned_ago > TURN_AT_LEAST_EVERY_S


@dataclass(frozen=True, slots=True)
class _Turn:
    """One queue being made true."""

    queue_reader: QueueReader
    places: Places
    reader: LetterReader
    done: ReconcileResult
    batch: int

    async def turn_round(self, queue: str, depth: int) -> None:
        """Read as many letters as there were at the start; what came meanwhile is for the next pass."""
        turn = await self.places.begin(queue)
        left = depth
        while left > 0:
            batch, around = await self._take(queue, turn, min(left, self.batch))
            await self._sort(queue, turn, batch)
            left = 0 if around or not batch else left - len(batch)
        await self.places.end(queue, turn)

    async def _take(self, queue: str, turn: int, most: int) -> tuple[list[FetchedMessage], bool]:
        """The next letters; True when the queue has come round or is empty (somebody else took letters out)."""
        batch: list[FetchedMessage] = []
        size = 0
        while len(batch) < most and size < BYTES_AT_A_TIME:
            drawn = await self.queue_reader.get(queue)
            if drawn is None:
                return batch, True
            batch.append(drawn)
            size += len(drawn.arrival.body)
            if drawn.arrival.headers.get(PASS) == turn and self.reader.own(drawn):
                return batch, True
        return batch, False

    async def _sort(self, queue: str, turn: int, batch: list[FetchedMessage]) -> None:
        """Commit, publish, acknowledge, in this order: a crash in between makes copies and loses nothing."""
        self.done.read += len(batch)
        ids: dict[UUID, None] = {}
        strangers: list[ForeignMessage] = []
        again: list[KnownLetter] = []
        for drawn in batch:
            letter_id = self.reader.own(drawn)
            if letter_id is None:
                strangers.append(self.reader.stranger(drawn))
            elif drawn.arrival.headers.get(PASS) == turn:  # the queue has come round
                again.append(_as_it_was(letter_id, drawn))
            else:
                ids[letter_id] = None
        if strangers:
            ids |= dict.fromkeys(await self.places.take_in(strangers))
            self.done.taken_in += len(strangers)
        kept = await self.places.keep(queue, turn, list(ids)) if ids else []
        await self._lay([*kept, *again], queue, turn)
        self.done.thrown += len(batch) - len(kept) - len(again)
        for drawn in batch:
            await self.queue_reader.ack(drawn)

    async def lay_missing(self, queue: str) -> None:
        """Publish the letters that have no place in the queue, and write their places down after that."""
        while missing := await self.places.missing(queue, MISSING_AT_A_TIME):
            for start in range(0, len(missing), self.batch):
                some = missing[start : start + self.batch]
                await self._lay(some, queue)
                await self.places.placed(queue, [letter.letter_id for letter in some])
                self.done.published += len(some)

    async def _lay(self, letters: Iterable[KnownLetter], queue: str, turn: int | None = None) -> None:
        """Publish letters of ours, all confirmed. Raises QueueRefuses, RabbitAway."""
        outs = [letter_of(letter, queue, turn) for letter in letters]
        told = await asyncio.gather(*(self.queue_reader.put(out) for out in outs), return_exceptions=True)
        for word in told:
            if isinstance(word, BaseException):
                raise word
            if word is not Published.CONFIRMED:
                raise QueueRefuses(f"{queue} does not take letters ({word.value})")


def _as_it_was(letter_id: UUID, drawn: FetchedMessage) -> KnownLetter:
    headers = drawn.arrival.headers
    return KnownLetter(letter_id, str(headers.get(KIND, "")), str(headers.get(REASON, "")))


def letter_of(letter: KnownLetter, queue: str, turn: int | None = None) -> Outgoing:
    """What lies in the queue for a letter: ids only."""
    headers: dict[str, Any] = {
        LETTER_ID: str(letter.letter_id),
        KIND: letter.kind,
        REASON: letter.cause,
        QUEUE: queue.removesuffix(".dead"),
    }
    if turn is not None:
        headers[PASS] = turn
    return Outgoing("", queue, b"", LETTER_TYPE, headers=headers)
