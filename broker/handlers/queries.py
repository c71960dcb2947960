"""Handlers of queries: offers and times. They change nothing, so they may be repeated freely."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from broker.clients import Clients
from broker.clients.http import Caller
from broker.errors import NothingOffered
from schemas.answers import OffersResult, TimeRow, TimesResult
from schemas.codes import ErrorCode
from schemas.external import MeetingTime
from schemas.requests import QueryOffers, QueryTimes

MOST_TIMES = 10
"""Times in an answer; with three forms each they make the 30 rows of release note 3.1."""


async def offers(message: QueryOffers, caller: Caller, clients: Clients) -> OffersResult:
    """The offers of this citizen. Raises NothingOffered 3 if there are none (R10)."""
    found = await clients.planner.offers(caller, message.contact_group or "", immediate=message.immediate)
    if not found:
        raise NothingOffered(ErrorCode.NO_OFFERS)
    return OffersResult(offers=found)


async def times(message: QueryTimes, caller: Caller, clients: Clients) -> TimesResult:
    """The times of one offer as rows. Raises NothingOffered 2, or 4 for straksbooking (R4, R10)."""
    found = await clients.booking.times(
        caller,
        message.offer_id,
        from_at=message.from_at,
        to_at=message.to_at,
        caseworker_id=message.caseworker_id,
    )
    rows = tuple(rows_of(found))
    if not rows:
        raise NothingOffered(ErrorCode.OTHER if message.immediate else ErrorCode.NO_TIMES)
    return TimesResult(rows=rows)


def rows_of(found: Iterable[MeetingTime]) -> Iterator[TimeRow]:
    """The first ten times, one row for each mødeform of that time, at most 30 rows (R2, release note 3.1).

    A time is a start and a caseworker: by start, then in the booking system's own order, then personligt
    fremmøde, telefonisk, digitalt.
    """
    for time in merged(found)[:MOST_TIMES]:
        for form in sorted(set(time.forms), key=lambda form: form.order):
            yield TimeRow(
                starts_at=time.starts_at, ends_at=time.ends_at, caseworker=time.caseworker, form=form
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
