"""Handlers of queries: offers and times. They change nothing, so they may be repeated freely."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from broker.clients import Clients
from broker.clients.http import Caller
from broker.errors import NothingOffered
from schemas.answers import OffersResult, TimeRow, TimesResult
from schemas.codes import ErrorCode, MeetingForm
from schemas.external import MeetingTime
from schemas.requests import QueryOffers, QueryTimes
from schemas.times_cursor import TimesCursor

MOST_TIMES = 10
"""Times in an answer; with three forms each they make the 30 rows of release note 3.1."""


async def offers(message: QueryOffers, caller: Caller, clients: Clients) -> OffersResult:
    """The offers of this citizen. Raises NothingOffered 3 if there are none (R10)."""
    found = await clients.planner.offers(caller, message.contact_group or "", immediate=message.immediate)
    if not found:
        raise NothingOffered(ErrorCode.NO_OFFERS)
    return OffersResult(offers=found)


async def times(message: QueryTimes, caller: Caller, clients: Clients) -> TimesResult:
    """One page of the times of an offer. Raises NothingOffered 2, or 4 for straksbooking (R4, R10), if there are none."""
    after = TimesCursor.read(message.page) if message.page else None
    from_at = message.from_at
    # The times before the cursor are not needed. A system may refuse a window that ends where it begins.
    if after is not None and (message.to_at is None or after.starts_at < message.to_at):
        from_at = max(from_at or after.starts_at, after.starts_at)
    found = await clients.booking.times(
        caller,
        message.offer_id,
        from_at=from_at,
        to_at=message.to_at,
        caseworker_id=message.caseworker_id,
    )
    # An empty later page is no failure: the citizen has seen times.
    if not found and after is None:
        raise NothingOffered(ErrorCode.OTHER if message.immediate else ErrorCode.NO_TIMES)
    return page_of(found, form=message.form, after=after, last=message.immediate)


def page_of(
    found: Iterable[MeetingTime],
    *,
    form: MeetingForm | None = None,
    after: TimesCursor | None = None,
    last: bool = False,
) -> TimesResult:
    """Ten times as rows, with the cursor of the next page (R2). `form`: only times that have it, one row each.

    `last`: there is no next page, whatever is left.
    """
    left = [time for time in following(merged(found), after) if form is None or form in time.forms]
    shown = left[:MOST_TIMES]
    more = len(left) > len(shown) and not last
    cursor = TimesCursor(shown[-1].starts_at, shown[-1].caseworker.id) if more else None
    return TimesResult(rows=tuple(rows_of(shown, form)), next_page=str(cursor) if cursor else None)


def following(ordered: list[MeetingTime], after: TimesCursor | None) -> list[MeetingTime]:
    """The times after the cursor. If its own time was taken meanwhile, all of its start are shown again, none skipped."""
    if after is None:
        return ordered
    left = [time for time in ordered if time.starts_at >= after.starts_at]
    seen = next(
        (
            place
            for place, time in enumerate(left, 1)
            if time.starts_at == after.starts_at and time.caseworker.id == after.caseworker_id
        ),
        0,
    )
    return left[seen:]


def rows_of(found: Iterable[MeetingTime], form: MeetingForm | None = None) -> Iterator[TimeRow]:
    """The first ten times, one row for each mødeform of that time (or for `form` alone), at most 30 rows (R2).

    A time is a start and a caseworker: by start, then in the booking system's own order, then personligt
    fremmøde, telefonisk, digitalt.
    """
    for time in merged(found)[:MOST_TIMES]:
        for each in sorted(set(time.forms), key=lambda form: form.order):
            if form in (None, each):
                yield TimeRow(
                    starts_at=time.starts_at, ends_at=time.ends_at, caseworker=time.caseworker, form=each
                )


def merged(found: Iterable[MeetingTime]) -> list[MeetingTime]:
    """Times sorted by start, one for each start and caseworker; forms of several entries are merged."""
    by_time: dict[tuple[object, str], MeetingTime] = {}
    for time in found:
        key = (time.starts_at, time.caseworker.id)
        earlier = by_time.get(key)
        forms = (*earlier.forms, *time.forms) if earlier else time.forms
        by_time[key] = (earlier or time).model_copy(update={"forms": forms})
    return sorted(by_time.values(), key=lambda time: time.starts_at)
