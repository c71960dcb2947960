"""The timeline of a trace: converts the result of `ops.trace` to moments. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from broker.ops import TRIAL, ReportStory, WholeStory

SAME_COMMIT = timedelta(milliseconds=500)
"""The times of one commit differ by less than this."""
Mood = Literal["plain", "good", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Moment:
    """One event on the timeline: when, to what kind of thing, and in words."""

    at: datetime
    what: str
    words: str
    mood: Mood = "plain"
    detail: str = ""


def moments(story: WholeStory) -> list[Moment]:
    """All events of the story, oldest first."""
    events = [*_requests(story), *_letters(story), *_operators(story)]
    for report in story.reports:
        events += _report(report)
    return sorted(events, key=lambda moment: moment.at)


def _requests(story: WholeStory) -> Iterator[Moment]:
    for request in story.requests:
        yield Moment(request.created_at, "request", f"{request.type} claimed", detail=request.jobcenter_code)
        if request.last_sent_at:
            yield Moment(request.last_sent_at, "request", "last sent", detail=f"to {request.booking_system}")
        if request.uncertain_since:
            yield Moment(request.uncertain_since, "request", "uncertain: no answer", "warn")
        if request.settled_at:
            words = " ".join(filter(None, (request.status or str(request.state), request.reason)))
            code = f"fejlkode {request.error_code}" if request.error_code else ""
            yield Moment(request.settled_at, "request", f"settled: {words}", _mood(request.status), code)


def _mood(status: str | None) -> Mood:
    if status == "done":
        return "good"
    return "warn" if status in ("refused", "expired", "uncertain") else "bad"


def _report(story: ReportStory) -> Iterator[Moment]:
    report = story.report
    to = f"to {report.supplier or 'no supplier yet'}"
    what = "test report" if report.type == TRIAL else f"{report.kind.value} failure report"
    yield Moment(report.created_at, "report", what, detail=f"{to}, count {report.count}")
    for attempt in story.attempts:
        probe = " (probe)" if attempt.probe else ""
        yield Moment(attempt.started_at, "attempt", f"attempt {attempt.number}{probe}", detail=to)
        if attempt.finished_at:
            result = " ".join(str(part) for part in (attempt.status, attempt.what, attempt.fault) if part)
            mood: Mood = "good" if attempt.verdict == "delivered" else "warn"
            words = f"attempt {attempt.number}: {attempt.verdict or 'no verdict'}"
            took = f"after {attempt.milliseconds} ms" if attempt.milliseconds is not None else ""
            detail = ", ".join(filter(None, (result, took)))
            yield Moment(attempt.finished_at, "attempt", words, mood, detail)
    if report.settled_at:
        mood = "good" if report.state.value == "delivered" else "bad"
        yield Moment(
            _settled_at(story, report.settled_at), "report", report.state.value, mood, report.cause or ""
        )


def _settled_at(story: ReportStory, settled_at: datetime) -> datetime:
    """When the report was settled, but not before the end of the attempt that settled it."""
    # Both times are of one commit, but they differ a little.
    close = [
        attempt.finished_at
        for attempt in story.attempts
        if attempt.finished_at and abs(attempt.finished_at - settled_at) < SAME_COMMIT
    ]
    return max([settled_at, *close])


def _letters(story: WholeStory) -> Iterator[Moment]:
    for letter in story.letters:
        # A dead report is already on the timeline.
        if letter.kind == "report":
            continue
        words = f"dead letter: {letter.cause}"
        yield Moment(letter.last_seen_at, "letter", words, "bad", f"in {letter.queue}")
    for replay in story.replays:
        if replay.replayed_at:
            yield Moment(replay.replayed_at, "replay", f"replay: {replay.state}", detail=replay.note or "")


def _operators(story: WholeStory) -> Iterator[Moment]:
    for entry in story.log:
        yield Moment(entry.at, "operator", f"{entry.actor}: {entry.action}", detail=entry.reason)
