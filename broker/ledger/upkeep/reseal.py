"""Rotation of keys: what older keys sealed is sealed again under the one that seals, tokens are made again.

Runs beside working brokers: a row is written only if it still holds the bytes that were read, and one that is held
by somebody is left for the next round. A run that was cut off is begun again, and skips what it did. Never touched:
the turns that are held, and the HMACs of business fields and merges, which name their key; they are counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from broker.ledger.postgres.connections import Connection, Server
from broker.ledger.postgres.sealed import SealedRow
from broker.ledger.upkeep.key_places import LOGGED, LOGGED_FOR, PLACES, SealedTable, behind, rewrite, uses
from broker.ledger.upkeep.walking import FIRST_UUID, Page, Walk, walking
from broker.sealing import VERSION, SealBroken, Sealer
from broker.telemetry.log import get_logger
from config.settings import Settings
from schemas.personal import Cpr

log = get_logger("ledger.reseal")

PAGE_ROWS = 200
"""Read at once; with the largest bodies some tens of megabytes, usually less than one."""
ROUNDS = 3
"""Rows that somebody held or changed are tried again so often; the counts say if any are left."""

ResealValues = tuple[Any, ...]


@dataclass(slots=True)
class KeyUse:
    """What still names one key, by place (`table.column`, and what for). `configured`: it is in the settings."""

    key_id: str
    sealing: bool
    configured: bool
    in_use: bool
    """It seals, or new tokens are made with it: it cannot be retired by anything done here."""
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def may_retire(self) -> bool:
        """Nothing needs it any more, once every process runs with settings that do not use it for new rows."""
        needed = any(count for place, count in self.rows.items() if place != LOGGED_FOR)
        return self.configured and not self.in_use and not needed


@dataclass(frozen=True, slots=True)
class ResealSummary:
    """What a run did: rows written, rows that do not open (their key is gone, or they are damaged), all keys."""

    written: int
    broken: int
    keys: tuple[KeyUse, ...]

    @property
    def may_retire(self) -> list[str]:
        return [key.key_id for key in self.keys if key.may_retire]


@dataclass(frozen=True, slots=True)
class ResealProgress:
    """How far: `looked_at` rows of about `total` in `table`, in which `phase` ("reseal" or "count")."""

    phase: str
    table: str
    looked_at: int
    total: int


OnProgress = Callable[[ResealProgress], None]


class Reseal:
    """One run. Raises LedgerAway; may be killed at any point and begun again."""

    def __init__(
        self, settings: Settings, sealer: Sealer, target: Server, tell: OnProgress | None = None
    ) -> None:
        self._keys = settings.keys
        self._merge_within = timedelta(seconds=settings.reports.merge_within_seconds)
        self._renewal = Renewal(sealer, self._keys.seal_with)
        self._target = target
        self._tell = tell or (lambda _: None)

    async def run(self) -> ResealSummary:
        """Everything under the newest keys, and what still names which key after that."""
        async with walking(self._target) as walk:
            written = 0
            for _ in range(ROUNDS):
                self._renewal.broken.clear()
                left = 0
                for place in PLACES:
                    done, missed = await self._table(walk, place)
                    written, left = written + done, left + missed
                if not left:
                    break
            return ResealSummary(written, len(self._renewal.broken), await self._count(walk))

    async def _table(self, walk: Walk, place: SealedTable) -> tuple[int, int]:
        """Rows written, and rows that somebody else held or changed meanwhile."""
        read, write = behind(place), rewrite(place)
        written = missed = 0
        total, seen = await self._about(walk, place), 0
        async for page in walk.pages(place.table, place.key, PAGE_ROWS, first=FIRST_UUID):
            rows = await walk.run(partial(self._behind, read, page))
            if renewed := self._renewal.of(place, rows):
                done = await walk.try_run(partial(_write, write, renewed), 0)
                written, missed = written + done, missed + len(renewed) - done
            seen += PAGE_ROWS
            self._tell(ResealProgress("reseal", place.table, min(seen, total), total))
            await asyncio.sleep(0)  # opening and sealing is work without a pause
        return written, missed

    async def _behind(self, statement: str, page: Page, connection: Connection) -> list[SealedRow]:
        newest = self._keys.token_order[-1]
        return [*await connection.fetch(statement, page.low, page.high, self._renewal.header, newest)]

    async def _about(self, walk: Walk, place: SealedTable) -> int:
        """Rows of the table; exact, for a progress bar that ends at its end."""
        return int(await walk.run(lambda c: c.fetchval(f"SELECT count(*) FROM {place.table}")) or 0)

    async def _count(self, walk: Walk) -> tuple[KeyUse, ...]:
        found: dict[tuple[bool, str], Counter[str]] = {}
        for place in PLACES:
            total, seen = await self._about(walk, place), 0
            async for page in walk.pages(place.table, place.key, PAGE_ROWS * 10, first=FIRST_UUID):
                for name, sealing, statement in uses(place):
                    await self._add(walk, found, name, sealing, statement, page)
                seen += PAGE_ROWS * 10
                self._tell(ResealProgress("count", place.table, min(seen, total), total))
        async for page in walk.pages("operator_log", "id", PAGE_ROWS * 10, first=0):
            await self._add(walk, found, LOGGED_FOR, False, LOGGED, page)
        return self._told(found)

    async def _add(
        self,
        walk: Walk,
        found: dict[tuple[bool, str], Counter[str]],
        name: str,
        sealing: bool,
        statement: str,
        page: Page,
    ) -> None:
        values = (page.low, page.high, self._merge_within)
        for row in await walk.run(lambda connection: connection.fetch(statement, *values)):
            found.setdefault((sealing, row["key_id"]), Counter())[name] += row["count"]

    def _told(self, found: dict[tuple[bool, str], Counter[str]]) -> tuple[KeyUse, ...]:
        keys = self._keys
        # Turns and merges are made with the oldest key, everything else with the newest.
        used = {(True, keys.seal_with), (False, keys.token_order[-1])}
        configured = {(True, name) for name in keys.sealing} | {(False, name) for name in keys.token_order}
        return tuple(
            KeyUse(name, sealing, (sealing, name) in configured, (sealing, name) in used, dict(rows))
            for (sealing, name) in sorted(configured | set(found), key=lambda one: (not one[0], one[1]))
            for rows in [found.get((sealing, name), Counter())]
        )


class Renewal:
    """Makes new values of read rows. Pure but for the nonces of the seals."""

    def __init__(self, sealer: Sealer, seal_with: str) -> None:
        self._sealer = sealer
        self.header = bytes([VERSION, len(seal_with)]) + seal_with.encode("ascii")
        self.broken: set[tuple[str, object]] = set()

    def of(self, place: SealedTable, rows: Sequence[SealedRow]) -> list[ResealValues]:
        """(id, all old values, all new values) of each row that opens and would change."""
        renewed = []
        for row in rows:
            try:
                old, new = self._row(place, row)
            except SealBroken as broken:
                self.broken.add((place.table, row[place.key]))
                log.error("row-does-not-open", what=place.table, reason=str(broken))
                continue
            if old != new:
                renewed.append((row[place.key], *old, *new))
        return renewed

    def _row(self, place: SealedTable, row: SealedRow) -> tuple[ResealValues, ResealValues]:
        of = str(row[place.key])
        opened = {
            column: self._sealer.open(row[column], of=of, field=name)
            for column, name in place.fields.items()
            if row[column] is not None
        }
        old: list[Any] = [row[column] for column in place.fields]
        new: list[Any] = [
            row[column]
            if column not in opened or row[column].startswith(self.header)
            else self._sealer.seal(opened[column], of=of, field=name)
            for column, name in place.fields.items()
        ]
        old += [row["citizen_token"], row["citizen_key"]]
        new += self._citizen(row, opened.get(place.told_by))
        if place.same:
            old += [row["same_token"], row["same_key"]]
            new += self._same(row, opened.get("body"))
        return tuple(old), tuple(new)

    def _citizen(self, row: SealedRow, plain: bytes | None) -> list[Any]:
        """The token under the newest key; as it was if there is none, or its number cannot be read any more."""
        stays = [row["citizen_token"], row["citizen_key"]]
        if row["citizen_key"] in (None, self._sealer.newest_token_key) or plain is None:
            return stays
        try:
            number = Cpr(json.loads(plain)["cpr"]).reveal().encode()
        except (ValueError, KeyError, TypeError, RecursionError):
            return stays
        token = self._sealer.token(number, purpose="citizen")
        return [token.digest, token.key_id]

    def _same(self, row: SealedRow, body: bytes | None) -> list[Any]:
        """As strangers.py makes it; a test compares them."""
        if row["same_key"] == self._sealer.newest_token_key or body is None:
            return [row["same_token"], row["same_key"]]
        value = row["queue"].encode() + b"\0" + body
        token = self._sealer.token(hashlib.sha256(value).digest(), purpose="same-letter")
        return [token.digest, token.key_id]


async def _write(statement: str, rows: Sequence[ResealValues], connection: Connection) -> int:
    arrays = [list(column) for column in zip(*rows, strict=True)]
    return int((await connection.execute(statement, *arrays)).split()[-1])
