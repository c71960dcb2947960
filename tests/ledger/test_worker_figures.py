"""The figures of /metrics: what is open in the ledger, counted by the labels that tell causes apart."""

from __future__ import annotations

from datetime import timedelta

from broker.health.readings import letters, uncertain, waiting
from broker.lanes.lane import LaneState
from broker.ledger.operators.figures import OTHER, Figures, FiguresReader
from broker.ledger.postgres.connections import Pool, Server
from broker.ledger.postgres.reachability import Availability
from tests.ledger.filled import fill
from tests.ledger.support import Sql

LETTERS, WAITING = 400, 80


async def look(dsn: str) -> Figures:
    lines = Pool(Server(dsn, 10), Availability(), 1)
    try:
        return await FiguresReader(lines, timedelta(seconds=15)).figures()
    finally:
        await lines.close()


async def test_an_empty_ledger_has_zeros_and_not_nothing(dsn: str) -> None:
    figures = await look(dsn)
    assert figures == Figures()
    assert [pile.number for pile in uncertain(figures).values()] == [0]
    assert [pile.number for pile in letters(figures).values()] == [0]


async def test_what_waits_and_what_is_dead_is_counted_with_the_age_of_the_oldest(dsn: str, sql: Sql) -> None:
    await fill(sql, requests=50, letters=LETTERS, delivered=30, waiting=WAITING)
    figures = await look(dsn)
    assert sum(pile.number for pile in waiting(figures).values()) == WAITING
    assert sum(pile.number for pile in letters(figures).values()) == LETTERS
    assert set(waiting(figures)) == set(figures.lanes) == {f"supplier-{n}" for n in range(8)}
    causes = {cause for _, cause in letters(figures)}
    assert causes == {
        "exhausted",
        "rejected",
        OTHER,
    }  # "status 404" is no word: a label has no text of its own
    oldest = figures.letters[("jobnet.reports.supplier-0.dead", "exhausted")]
    assert oldest.oldest_s > timedelta(days=1).total_seconds()
    assert {lane.state for lane in figures.lanes.values()} == {LaneState.OPEN}
