"""The timeline shows events in the order in which they happened."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from broker.console.timeline import moments
from broker.ledger.reports.report_model import AttemptRow, ReportRow, ReportState, ReportStory
from broker.ops import WholeStory
from schemas.codes import ReportKind

NOON = datetime(2031, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def bare(kind: Any, given: dict[str, Any]) -> Any:
    """A row with these fields; all others are None."""
    return kind(**{f.name: given.get(f.name) for f in fields(kind)})


def attempt(number: int, started: float, finished: float | None, verdict: str | None) -> AttemptRow:
    given: dict[str, Any] = {
        "number": number,
        "started_at": at(started),
        "finished_at": None if finished is None else at(finished),
        "verdict": verdict,
        "probe": False,
    }
    row: AttemptRow = bare(AttemptRow, given)
    return row


def report(*attempts: AttemptRow, settled: float | None, state: ReportState) -> WholeStory:
    given: dict[str, Any] = {
        "report_id": UUID(int=1),
        "kind": ReportKind.AUTOMATIC,
        "supplier": "nordsoft",
        "count": 1,
        "state": state,
        "created_at": NOON,
        "settled_at": None if settled is None else at(settled),
        "cause": "exhausted",
    }
    row: ReportRow = bare(ReportRow, given)
    return WholeStory((), (ReportStory(row, attempts),), (), (), ())


def test_the_final_state_follows_the_attempt_that_caused_it() -> None:
    story = report(
        attempt(1, 1, 2, "retry"), attempt(2, 5, 5.010, "dead"), settled=5.004, state=ReportState.DEAD
    )
    words = [moment.words for moment in moments(story)]
    assert words == [
        "automatic failure report",
        "attempt 1",
        "attempt 1: retry",
        "attempt 2",
        "attempt 2: dead",
        "dead",
    ]


def test_an_attempt_without_a_result_is_shown_as_started() -> None:
    story = report(attempt(1, 1, None, None), settled=None, state=ReportState.DELIVERING)
    assert [(moment.words, moment.mood) for moment in moments(story)][1:] == [("attempt 1", "plain")]
