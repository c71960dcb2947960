"""Key rotation: content sealed with older keys is sealed again with the current key, and tokens are renewed.

Runs while brokers work: a row is written only if it has not changed since it was read, and a locked row is left for
the next round. An interrupted run may be repeated; it skips finished rows. Not renewed, only counted: the keys of
turns, business HMACs and merge tokens (docs/privacy.md#blind-index).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from broker.ledger.postgres.connections import Connection, Server
from broker.ledger.postgres.sealed import SealedRow
from broker.ledger.upkeep.key_columns import (
    LOGGED,
    LOGGED_FOR,
    SEALED_TABLES,
    SealedTable,
    key_counts,
    outdated,
    rewrite,
)
from broker.ledger.upkeep.table_walk import FIRST_UUID, Page, Walk, open_walk
from broker.sealing import VERSION, SealBroken, Sealer
from broker.telemetry.log import get_logger
from config.settings import Settings
from schemas.personal import Cpr

log = get_logger("ledger.reseal")

PAGE_ROWS = 200
"""Rows per page; usually less than a megabyte, some tens of megabytes with the largest bodies."""
ROUNDS = 3
"""How often locked or changed rows are tried; the counts show whether any are left."""

ResealValues = tuple[Any, ...]


@dataclass(slots=True)
class KeyUse:
    """How many rows use one key.

    `sealing`: a sealing key, else a token key. `configured`: it is in the settings. `in_use`: new rows are sealed or
    get tokens with it. `rows`: by column (`table.column`, and the use).
    """

    key_id: str
    sealing: bool
    configured: bool
    in_use: bool
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def may_retire(self) -> bool:
        """Whether the key may be removed, once no process uses it for new rows."""
        needed = any(count for column, count in self.rows.items() if column != LOGGED_FOR)
        return self.configured and not self.in_use and not needed


@dataclass(frozen=True, slots=True)
class ResealSummary:
    """The result of a run. `broken`: rows that cannot be opened (key removed, or damaged)."""

    written: int
    broken: int
    keys: tuple[KeyUse, ...]

    @property
    def may_retire(self) -> list[str]:
        return [key.key_id for key in self.keys if key.may_retire]


@dataclass(frozen=True, slots=True)
class ResealProgress:
    """Progress: `looked_at` of `total` rows of `table`; `phase` is "reseal" or "count"."""

    phase: str
    table: str
    looked_at: int
    total: int


OnProgress = Callable[[ResealProgress], None]


class Reseal:
    """One run. Raises LedgerAway; an interrupted run may be repeated."""

    def __init__(
        self, settings: Settings, sealer: Sealer, server: Server, on_progress: OnProgress | None = None
    ) -> None:
        self._keys = settings.keys
        self._merge_within = timedelta(seconds=settings.reports.merge_within_seconds)
        self._renewal = Renewal(sealer, self._keys.seal_with)
        self._server = server
        self._on_progress = on_progress or (lambda _: None)

    async def run(self) -> ResealSummary:
        """Renew every row, then count the rows that still use each key."""
        async with open_walk(self._server) as walk:
            written = 0
            for _ in range(ROUNDS):
                self._renewal.broken.clear()
                left = 0
                for table in SEALED_TABLES:
                    done, missed = await self._renew_table(walk, table)
                    written, left = written + done, left + missed
                if not left:
                    break
            return ResealSummary(written, len(self._renewal.broken), await self._count_keys(walk))

    async def _renew_table(self, walk: Walk, table: SealedTable) -> tuple[int, int]:
        """Rows written, and rows that were locked or changed by others."""
        read, write = outdated(table), rewrite(table)
        written = missed = 0
        async for page in self._pages(walk, table, "reseal", PAGE_ROWS):
            rows = await walk.run(partial(self._outdated, read, page))
            if renewed := self._renewal.of(table, rows):
                done = await walk.try_run(partial(_write, write, renewed), 0)
                written, missed = written + done, missed + len(renewed) - done
            await asyncio.sleep(0)  # opening and sealing would block the event loop
        return written, missed

    async def _pages(self, walk: Walk, table: SealedTable, phase: str, size: int) -> AsyncIterator[Page]:
        """The pages of a table, with progress after each."""
        total = int(await walk.run(lambda c: c.fetchval(f"SELECT count(*) FROM {table.table}")) or 0)
        done = 0
        async for page in walk.pages(table.table, table.key, size, first=FIRST_UUID):
            yield page
            done += size
            self._on_progress(ResealProgress(phase, table.table, min(done, total), total))

    async def _outdated(self, statement: str, page: Page, connection: Connection) -> list[SealedRow]:
        newest = self._keys.token_order[-1]
        return [*await connection.fetch(statement, page.low, page.high, self._renewal.header, newest)]

    async def _count_keys(self, walk: Walk) -> tuple[KeyUse, ...]:
        found: dict[tuple[bool, str], Counter[str]] = {}
        for table in SEALED_TABLES:
            async for page in self._pages(walk, table, "count", PAGE_ROWS * 10):
                for name, sealing, statement in key_counts(table):
                    await self._add(walk, found, name, sealing, statement, page)
        async for page in walk.pages("operator_log", "id", PAGE_ROWS * 10, first=0):
            await self._add(walk, found, LOGGED_FOR, False, LOGGED, page)
        return self._key_uses(found)

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

    def _key_uses(self, found: dict[tuple[bool, str], Counter[str]]) -> tuple[KeyUse, ...]:
        keys = self._keys
        # The oldest token key makes turns and merge tokens, which are counted by row; the newest makes all other tokens.
        used = {(True, keys.seal_with), (False, keys.token_order[-1])}
        configured = {(True, name) for name in keys.sealing} | {(False, name) for name in keys.token_order}
        return tuple(
            KeyUse(name, sealing, (sealing, name) in configured, (sealing, name) in used, dict(rows))
            for (sealing, name) in sorted(configured | set(found), key=lambda key: (not key[0], key[1]))
            for rows in [found.get((sealing, name), Counter())]
        )


class Renewal:
    """Computes the new values of rows. Pure, except for the random nonces of the seals."""

    def __init__(self, sealer: Sealer, seal_with: str) -> None:
        self._sealer = sealer
        self.header = bytes([VERSION, len(seal_with)]) + seal_with.encode("ascii")
        self.broken: set[tuple[str, object]] = set()

    def of(self, table: SealedTable, rows: Sequence[SealedRow]) -> list[ResealValues]:
        """(id, all old values, all new values) of each row that can be opened and changes."""
        renewed = []
        for row in rows:
            try:
                old, new = self._row(table, row)
            except SealBroken as broken:
                self.broken.add((table.table, row[table.key]))
                log.error("row-cannot-be-opened", what=table.table, reason=str(broken))
                continue
            if old != new:
                renewed.append((row[table.key], *old, *new))
        return renewed

    def _row(self, table: SealedTable, row: SealedRow) -> tuple[ResealValues, ResealValues]:
        of = str(row[table.key])
        opened = {
            column: self._sealer.open(row[column], of=of, field=name)
            for column, name in table.fields.items()
            if row[column] is not None
        }
        old: list[Any] = [row[column] for column in table.fields]
        new: list[Any] = [
            row[column]
            if column not in opened or row[column].startswith(self.header)
            else self._sealer.seal(opened[column], of=of, field=name)
            for column, name in table.fields.items()
        ]
        old += [row["citizen_token"], row["citizen_key"]]
        new += self._citizen(row, opened.get(table.citizen_in))
        if table.same:
            old += [row["same_token"], row["same_key"]]
            new += self._same(row, opened.get("body"))
        return tuple(old), tuple(new)

    def _citizen(self, row: SealedRow, plain: bytes | None) -> list[Any]:
        """The token with the newest key; unchanged if there is none, or if the content has no CPR number."""
        unchanged = [row["citizen_token"], row["citizen_key"]]
        if row["citizen_key"] in (None, self._sealer.newest_token_key) or plain is None:
            return unchanged
        try:
            number = Cpr(json.loads(plain)["cpr"]).reveal().encode()
        except (ValueError, KeyError, TypeError, RecursionError):
            return unchanged
        token = self._sealer.token(number, purpose="citizen")
        return [token.digest, token.key_id]

    def _same(self, row: SealedRow, body: bytes | None) -> list[Any]:
        """The token of queue and body, as in broker/dead_letters/intake.py; a test compares the two."""
        if row["same_key"] == self._sealer.newest_token_key or body is None:
            return [row["same_token"], row["same_key"]]
        value = row["queue"].encode() + b"\0" + body
        token = self._sealer.token(hashlib.sha256(value).digest(), purpose="same-letter")
        return [token.digest, token.key_id]


async def _write(statement: str, rows: Sequence[ResealValues], connection: Connection) -> int:
    arrays = [list(column) for column in zip(*rows, strict=True)]
    return int((await connection.execute(statement, *arrays)).split()[-1])
