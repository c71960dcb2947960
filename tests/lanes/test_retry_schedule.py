"""Lanes and policy together under random results, pauses and clock steps: what was promised is kept.

The model hands over as the ledger does, and keeps its own book of promises beside the code under test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.errors import AtCapacity, CallFacts, ContractBroken, Misconfigured, Refused, Rejected, Unavailable
from broker.lanes.decision import DeadLetter, Delivered, Hold, Retry, RetryState
from broker.lanes.events import Event, Paused, ProbeLost, Resumed, TimeCame
from broker.lanes.lane import Lane, LaneState, after, may_hand_over, wants_probe
from broker.lanes.retry_policy import judge
from config.report_sections import ReportSettings
from schemas.codes import Reason

START = datetime(2031, 3, 3, 9, 0, tzinfo=UTC)
DAY = 24 * 3600.0
DELAYS = (10.0, 60.0, 300.0, 1800.0)


RULES = ReportSettings(park_after_failures=3, retry_delays_seconds=DELAYS)


@dataclass
class Book:
    """One report: what the code under test says of it, and what was promised to its supplier."""

    tries: RetryState = field(default_factory=RetryState)
    due: datetime = START
    not_before: datetime = START
    state: str = "waiting"
    probe: bool = False
    counted: int = 0


def met(status: int | None, what: str = "") -> CallFacts:
    return CallFacts("nordlys", "fejlmelding", what or f"status {status}", status=status)


WISHES = st.sampled_from([0.0, 1.0, 59.0, 3600.0, DAY, 3 * DAY])
# (the error, whether it uses up a retry of the list)
RESULTS: st.SearchStrategy[tuple[Exception | None, bool]] = st.one_of(
    st.just((None, False)),
    st.just((Refused(Reason.UNKNOWN_CITIZEN, call_facts=met(400)), False)),
    st.just((Rejected(met(422)), False)),
    st.just((Misconfigured(met(404)), False)),
    st.just((AtCapacity(CallFacts("nordlys", "fejlmelding", "waiting-list-full", sent=False)), False)),
    st.just((Unavailable(met(429)), False)),
    st.just((Unavailable(met(None, "timeout")), True)),
    st.just((ContractBroken(met(302, "redirect")), True)),
    WISHES.map(lambda wish: (Unavailable(met(503), wish), False)),
    WISHES.map(lambda wish: (Unavailable(met(429), wish), False)),
    WISHES.map(lambda wish: (Unavailable(met(500), wish), True)),
)


def said_no(error: Exception | None) -> bool:
    """Whether the report was surely not taken in: a failed probe uses up a retry only if it may have been."""
    return isinstance(error, Unavailable) and error.call_facts.status is not None


class Schedule(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.lane = Lane("nordlys", changed_at=START)
        self.asked = START  # the supplier's own wish, booked here apart from the lane
        self.books = {UUID(int=number): Book() for number in range(1, 6)}

    def waiting(self) -> list[UUID]:
        return [id_ for id_, book in self.books.items() if book.state == "waiting" and book.due <= self.now]

    def under_way(self) -> list[UUID]:
        return [id_ for id_, book in self.books.items() if book.state == "under-way"]

    def begin(self, id_: UUID, *, probe: bool) -> None:
        book = self.books[id_]
        assert self.lane.state is not LaneState.PAUSED
        assert self.now >= self.asked, "earlier than Retry-After said"
        assert self.now >= book.not_before, "earlier than the retry list said"
        book.state, book.probe = "under-way", probe

    @rule(seconds=st.sampled_from([0.5, 9.5, 10.0, 60.0, 299.0, 1800.0, 3600.0, DAY]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: may_hand_over(self.lane, self.now))
    @rule(most=st.integers(1, 3))
    def hand_over(self, most: int) -> None:
        for id_ in self.waiting()[:most]:
            self.begin(id_, probe=False)

    @precondition(lambda self: wants_probe(self.lane, self.now))
    @rule()
    def send_probe(self) -> None:
        due = self.waiting()
        if not due:
            return
        chosen = min(due, key=lambda id_: id_ == self.lane.last_probe)
        if len(due) > 1:
            assert chosen != self.lane.last_probe
        self.happens(TimeCame(chosen))
        assert self.lane.state is LaneState.PROBING
        self.begin(chosen, probe=True)

    @precondition(lambda self: bool(self.under_way()))
    @rule(which=st.integers(0, 4), result=RESULTS, chance=st.sampled_from([0.0, 0.5, 1.0]))
    def finish(self, which: int, result: tuple[Exception | None, bool], chance: float) -> None:
        error, counts = result
        ids = self.under_way()
        book = self.books[ids[which % len(ids)]]
        counts = counts and not (book.probe and said_no(error))
        self.promise(book, error, counts)
        got = judge(error, book.tries, RULES, {}, probe=book.probe, chance=lambda: chance)
        book.counted += counts and not isinstance(got.verdict, DeadLetter)
        assert got.tries.retries == book.counted, "only what counts is counted"
        book.tries = got.tries
        match got.verdict:
            case Retry(pause_s=pause):
                book.state, book.due = "waiting", self.now + timedelta(seconds=pause)
            case Hold():
                book.state, book.due = "waiting", self.now
            case Delivered() | DeadLetter():
                book.state = "ended"
        if got.lane_event is not None:
            self.happens(got.lane_event)

    def promise(self, book: Book, error: Exception | None, counts: bool) -> None:
        wish = error.retry_after if isinstance(error, Unavailable) else None
        if wish is not None:
            self.asked = max(self.asked, self.now + timedelta(seconds=min(wish, DAY)))
        if counts and book.counted < len(DELAYS):
            book.not_before = self.now + timedelta(seconds=DELAYS[book.counted])

    @rule()
    def a_person_pauses(self) -> None:
        self.happens(Paused("anna", "why not"))

    @rule()
    def a_person_resumes(self) -> None:
        self.happens(Resumed("anna", "why not"))

    @precondition(lambda self: self.lane.state is LaneState.PROBING)
    @rule()
    def the_probe_is_lost(self) -> None:
        for book in self.books.values():
            if book.state == "under-way" and book.probe:
                book.state = "waiting"
        self.happens(ProbeLost())

    @rule()
    def another_report_comes(self) -> None:
        if len(self.books) < 20:
            self.books[UUID(int=len(self.books) + 1)] = Book(due=self.now, not_before=self.now)

    def happens(self, event: Event) -> None:
        self.lane = after(self.lane, event, self.now, RULES)

    @invariant()
    def a_paused_lane_hands_nothing_over(self) -> None:
        if self.lane.state is LaneState.PAUSED:
            assert not may_hand_over(self.lane, self.now)
            assert not wants_probe(self.lane, self.now)

    @invariant()
    def no_parking_is_longer_than_the_ceiling_or_the_suppliers_wish(self) -> None:
        if self.lane.state is LaneState.PARKED:
            assert self.lane.parked_until is not None
            ceiling = self.lane.changed_at + timedelta(seconds=RULES.park_most_seconds)
            assert self.lane.parked_until <= max(ceiling, self.asked)

    @invariant()
    def whatever_happened_a_path_leads_back_to_open(self) -> None:
        lane, now = self.lane, self.now
        if lane.state is LaneState.PAUSED:
            lane = after(lane, Resumed("anna", "on"), now, RULES)
        if lane.state is LaneState.PROBING:
            lane = after(lane, ProbeLost(), now, RULES)
        if lane.state is LaneState.PARKED:
            now = max(now, lane.parked_until or now)
            assert now <= max(self.now, self.asked) + timedelta(seconds=RULES.park_most_seconds)
            lane = after(lane, TimeCame(UUID(int=1)), now, RULES)
            delivered = judge(None, RetryState(), RULES, {}, probe=True)
            assert delivered.lane_event is not None
            lane = after(lane, delivered.lane_event, now, RULES)
        assert may_hand_over(lane, now)


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
