"""The ledger as the rest of the broker sees it: `async with Ledger.open(settings, sealer) as ledger`.

Claim, record and settle are gathered into group commits and wait while PostgreSQL is away; everything else
raises LedgerAway then. What was promised, what is due and how it ended is here; nothing is published or
called from here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import timedelta
from typing import Self
from uuid import UUID, uuid4

from broker.errors import LedgerAway
from broker.ledger.model import (
    Claim,
    ClaimOutcome,
    ClaimRequest,
    ConsumerStatus,
    DueEvent,
    LedgerMisfit,
    Settled,
    StoredAnswer,
    Story,
    WorkerRow,
)
from broker.ledger.postgres.connections import Connection, LazyConnection, Pool, Server
from broker.ledger.postgres.embedded import Embedded
from broker.ledger.postgres.group_commit import GroupCommit
from broker.ledger.postgres.heartbeat import Heartbeat
from broker.ledger.postgres.reachability import Availability
from broker.ledger.postgres.sealed import FieldSealer
from broker.ledger.postgres.versions import bring_up_to_date, check_version
from broker.ledger.reports.new_reports import NewReports
from broker.ledger.reports.report_ledger import Reports
from broker.ledger.requests.claims import Claims
from broker.ledger.requests.entries import ClaimEntry as ClaimEntry
from broker.ledger.requests.held_claims import HeldClaims
from broker.ledger.requests.request_lookups import Lookups
from broker.ledger.requests.settles import SettleEntry as SettleEntry
from broker.ledger.requests.settles import Settles
from broker.ledger.requests.verifications import Verifications
from broker.sealing import Sealer
from broker.tasks import cancel_and_wait
from config.settings import Settings
from schemas.personal import Cpr

OWN_LINES = 3
"""Heartbeat, claims and settles have a line each; the rest of the pool is for the other calls."""
CLOSE_S = 5.0
"""How long a close waits for the last batches before it lets go of them."""
OLD_TURNS = "SELECT DISTINCT turn_key FROM requests WHERE turn IS NOT NULL AND turn_key <> $1"


async def dsn_of(settings: Settings, stack: contextlib.AsyncExitStack) -> str:
    """Of the server that is configured, or of the embedded one: started, upgraded, and let go with `stack`."""
    if settings.ledger.dsn is not None:
        return settings.ledger.dsn.get_secret_value()
    embedded = await Embedded.start(settings.ledger.embedded_directory)
    stack.push_async_callback(embedded.close)
    await bring_up_to_date(embedded.dsn)
    return embedded.dsn


class Ledger:
    """One process's door to PostgreSQL. `owner` is this process in the table of workers."""

    def __init__(self, settings: Settings, sealer: Sealer, dsn: str) -> None:
        ledger = settings.ledger
        threshold = timedelta(seconds=ledger.owner_dead_after_seconds)
        target = Server(dsn, ledger.statement_timeout_seconds)
        quick = Server(dsn, min(ledger.statement_timeout_seconds, ledger.owner_dead_after_seconds / 3))
        self.owner = uuid4()
        self.reach = Availability()
        self._safe = FieldSealer(sealer)
        self._holdings = HeldClaims()
        self._hot = [
            LazyConnection(quick, self.reach),
            LazyConnection(target, self.reach),
            LazyConnection(target, self.reach),
        ]
        self._lines = Pool(target, self.reach, max(1, ledger.pool_size - OWN_LINES))
        every_s = ledger.heartbeat_seconds
        self._heart = Heartbeat(self.owner, self._hot[0], self.reach, every_s=every_s, threshold=threshold)
        merge_within = timedelta(seconds=settings.reports.merge_within_seconds)
        join_within = timedelta(seconds=settings.reports.join_within_seconds)
        new = NewReports(merge_within, join_within)
        self._claims = Claims(self.owner, threshold, self._hot[1], self._safe, self._holdings, new)
        verify_after = timedelta(seconds=settings.verification.every_seconds)
        self._settles = Settles(verify_after, self._hot[2], self._safe, new)
        self._verifications = Verifications(
            self.owner, threshold, self._lines, self._safe, self._holdings, self._settles
        )
        self._lookups = Lookups(threshold, self._lines, self._safe)
        self.reports = Reports(settings, self.owner, self._lines, target, self.reach, self._safe)
        most, linger_s = ledger.batch_size, ledger.batch_linger_ms / 1000
        self._claiming: GroupCommit[ClaimEntry, ClaimOutcome] = GroupCommit(
            self._claims.flush, self.reach, most=most, linger_s=linger_s, what="claims"
        )
        self._settling: GroupCommit[SettleEntry, Settled | None] = GroupCommit(
            self._settles.flush, self.reach, most=most, linger_s=linger_s, what="settles"
        )
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings, sealer: Sealer) -> AsyncIterator[Self]:
        """A ledger whose heart beats. Raises LedgerAway, or LedgerMisfit with the command that helps."""
        async with contextlib.AsyncExitStack() as stack:
            ledger = cls(settings, sealer, await dsn_of(settings, stack))
            stack.push_async_callback(ledger._close)
            await ledger._start()
            yield ledger

    @classmethod
    @contextlib.asynccontextmanager
    async def reading(cls, settings: Settings, sealer: Sealer) -> AsyncIterator[Lookups]:
        """For commands: looks things up without heartbeat or claim. Raises LedgerAway, LedgerMisfit."""
        ledger = settings.ledger
        async with contextlib.AsyncExitStack() as stack:
            target = Server(await dsn_of(settings, stack), ledger.statement_timeout_seconds)
            lines = Pool(target, Availability(), 1)
            stack.push_async_callback(lines.close)
            await lines.run(check_version)
            yield Lookups(timedelta(seconds=ledger.owner_dead_after_seconds), lines, FieldSealer(sealer))

    async def _start(self) -> None:
        await self._lines.run(self._check)
        await self._heart.beat()
        for run in (self._heart.run, self._claiming.run, self._settling.run, *self.reports.gathering):
            self._tasks.append(asyncio.create_task(run()))

    async def _check(self, connection: Connection) -> None:
        """Two token keys for the turn at a time would let two bookings of one citizen pass each other."""
        await check_version(connection)
        if old := await connection.fetch(OLD_TURNS, self._safe.turn_key):
            keys = ", ".join(row["turn_key"] for row in old)
            raise LedgerMisfit(
                f"open bookings hold their turn under token key {keys}: keep it first in token_order"
            )

    async def _close(self) -> None:
        """Commit what is in hand, say goodbye, let go; bounded, and nothing is lost if it does not work."""
        with contextlib.suppress(TimeoutError, LedgerAway):
            async with asyncio.timeout(CLOSE_S):
                if self._tasks:
                    await self._claiming.drained()
                    await self._settling.drained()
                    await self.reports.drained()
                    await self._stop_tasks()
                await self._heart.stop()
        await self._stop_tasks()
        for line in self._hot:
            await line.close()
        await self.reports.close()
        await self._lines.close()

    async def _stop_tasks(self) -> None:
        """The heartbeat too, before the row says stopped: nothing of ours beats after that."""
        await cancel_and_wait(self._tasks)

    # -- gathered: these wait while PostgreSQL is away -------------------------------------------------------

    async def claim(self, ask: ClaimRequest) -> ClaimOutcome:
        """Claim the request and its citizen's turn. Raises RowRefused, SealBroken (of a stored answer)."""
        return await self._enter(self._claims.entry(ask))

    async def record(self, ask: ClaimRequest, ending: StoredAnswer) -> ClaimOutcome:
        """Settle what was never begun, without a turn; what is known already has the outcomes of a claim."""
        return await self._enter(self._claims.entry(ask, ending))

    async def record_query(self, ask: ClaimRequest, ending: StoredAnswer) -> None:
        """Remember a failed query, because a citizen may report it; a repeat of it changes nothing."""
        await self._enter(self._claims.entry(ask, ending))

    async def _enter(self, entry: ClaimEntry) -> ClaimOutcome:
        with self._holdings.asking(entry.ask.request_id, entry.token):
            return await self._claiming.submit(entry)

    async def settle(self, claim: Claim, ending: StoredAnswer) -> Settled | None:
        """What is stored now; None if the claim was overtaken: publish nothing then. Raises RowRefused."""
        return await self._settling.submit(self._settles.entry(claim, ending))

    # -- at once: these raise LedgerAway ---------------------------------------------------------------------

    async def release(self, claim: Claim) -> None:
        """Let a running claim go, as if it had not been taken over: somebody else is to carry it."""
        await self._verifications.release(claim)

    async def verifications_due(self, limit: int) -> list[Claim]:
        """Claims on uncertain bookings whose look-up is due, messages opened (None: its seal is broken)."""
        return await self._verifications.due(limit)

    async def claim_verification(self, request_id: UUID) -> Claim | None:
        """The same for one, due or not (rule 9); None if somebody verifies it, or it is not uncertain."""
        return await self._verifications.claim(request_id)

    async def postpone(self, claim: Claim, seconds: float) -> bool:
        """The look-up told nothing: due again in `seconds`. False if overtaken."""
        return await self._verifications.postpone(claim, seconds)

    async def give_up(self, claim: Claim) -> bool:
        """`unverified`: the turn is free, an event is due, the answer stays. False if overtaken."""
        return await self._verifications.give_up(claim)

    async def sweep(self, answer_for: Callable[[Claim], StoredAnswer]) -> int:
        """Free what dead owners left: verifications fall due, bookings past their deadline become uncertain.

        `answer_for` makes the uncertain ending of such a booking. Returns how many were freed; at most 100 at
        once.
        """
        return await self._verifications.sweep(answer_for)

    async def events_due(self, limit: int) -> list[DueEvent]:
        """Outcomes of verifications that nobody published; due again in a minute unless `event_sent`."""
        return await self._lookups.events_due(limit)

    async def event_due(self, request_id: UUID) -> None:
        """The outcome of a settled or uncertain request was not told: the scheduler is to tell it."""
        await self._lookups.event_due(request_id)

    async def event_sent(self, request_ids: Iterable[UUID]) -> None:
        await self._lookups.event_sent(request_ids)

    async def open_systems(self) -> set[tuple[str, str]]:
        """("planner" | "booking" | "supplier", name) of every system that an open request needs."""
        return await self._lookups.open_systems()

    async def trace(self, request_id: UUID) -> Story | None:
        return await self._lookups.trace(request_id)

    async def find(self, cpr: Cpr) -> list[UUID]:
        """The citizen's requests, newest first, at most 1000, under every token key that is configured."""
        return await self._lookups.find(cpr)

    async def workers(self) -> list[WorkerRow]:
        return await self._lookups.workers()

    # -- this process ----------------------------------------------------------------------------------------

    async def set_ready(self, ready: bool) -> None:
        """Shown in the table of workers with the next heartbeat, which comes at once."""
        self._heart.ready = ready
        self.reach.nudged.set()

    def show(self, sight: Callable[[], ConsumerStatus | None]) -> None:
        """From now on each heartbeat also writes down what this process sees of itself."""
        self._heart.sight = sight

    def heartbeat_age(self) -> float:
        """Seconds since the last committed heartbeat began (the time the machine slept included)."""
        return self._heart.age_s

    @property
    def away(self) -> bool:
        """Whether PostgreSQL is out of reach: stop consuming, say not ready."""
        return self.reach.away

    @property
    def on_away(self) -> list[Callable[[], None]]:
        """Called, in the loop, when PostgreSQL goes out of reach."""
        return self.reach.on_away

    @property
    def on_back(self) -> list[Callable[[], None]]:
        """Called, in the loop, when a heartbeat is committed again."""
        return self.reach.on_back

    async def wait_until_back(self) -> None:
        await self.reach.wait_until_back()

    async def wait_until_away(self) -> None:
        await self.reach.wait_until_away()
