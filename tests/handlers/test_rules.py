"""The business rules of docs/rules.md that handlers apply, as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Refused
from broker.handlers.bookings import check_choice, check_movable
from broker.handlers.queries import MOST_TIMES, rows_of
from schemas.codes import MeetingForm, Reason
from schemas.external import Booking, Caseworker, MeetingTime, Wish
from schemas.ids import invitation_of

START = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
ALL = tuple(MeetingForm)


def time_of(minutes: int = 0, who: str = "a", forms: tuple[MeetingForm, ...] = ALL) -> MeetingTime:
    starts_at = START + timedelta(minutes=minutes)
    return MeetingTime(
        starts_at=starts_at,
        ends_at=starts_at + timedelta(minutes=30),
        caseworker=Caseworker(id=who, name=who.upper()),
        forms=forms,
    )


def wish(form: MeetingForm = MeetingForm.TELEPHONE, who: str | None = None, minutes: int = 0) -> Wish:
    return Wish(offer_id=uuid4(), starts_at=START + timedelta(minutes=minutes), form=form, caseworker_id=who)


class TestRows:
    """Release note 3.1: "Der kan vises op til 30 tider mod tidligere 10 tider [...] sa alle modeformer"."""

    def test_ten_times_of_three_forms_make_thirty_rows(self) -> None:
        rows = list(rows_of(time_of(30 * n) for n in range(12)))
        assert len(rows) == 30
        assert rows[-1].starts_at == START + timedelta(minutes=270)

    def test_a_time_is_repeated_only_for_its_own_forms_in_the_order_of_the_release_note(self) -> None:
        forms = (MeetingForm.DIGITAL, MeetingForm.IN_PERSON)
        assert [row.form for row in rows_of([time_of(forms=forms)])] == [
            MeetingForm.IN_PERSON,
            MeetingForm.DIGITAL,
        ]

    def test_equal_starts_keep_the_order_of_the_booking_system(self) -> None:
        rows = rows_of([time_of(30, "x"), time_of(0, "zoe"), time_of(0, "bo")])
        assert [row.caseworker.id for row in rows][::3] == ["zoe", "bo", "x"]

    def test_a_time_is_a_start_and_a_caseworker_even_when_its_forms_come_apart(self) -> None:
        apart = [time_of(forms=(MeetingForm.DIGITAL,)), time_of(forms=(MeetingForm.IN_PERSON,))]
        assert [row.form for row in rows_of(apart)] == [MeetingForm.IN_PERSON, MeetingForm.DIGITAL]

    @given(
        st.lists(
            st.builds(
                time_of,
                st.integers(0, 40).map(lambda n: n * 30),
                st.sampled_from("abc"),
                st.lists(st.sampled_from(ALL), min_size=1, max_size=3).map(tuple),
            ),
            max_size=60,
        )
    )
    def test_never_more_than_thirty_rows_and_every_row_is_a_form_of_its_very_time(
        self, found: list[MeetingTime]
    ) -> None:
        rows = list(rows_of(found))
        offered = {(t.starts_at, t.caseworker.id, form) for t in found for form in t.forms}
        shown = [(row.starts_at, row.caseworker.id, row.form) for row in rows]
        assert len(rows) <= 30
        assert set(shown) <= offered
        assert len(shown) == len(set(shown))
        assert [row.starts_at for row in rows] == sorted(row.starts_at for row in rows)
        assert len({(start, who) for start, who, _ in shown}) == min(
            MOST_TIMES, len({(t.starts_at, t.caseworker.id) for t in found})
        )


class TestChoice:
    """R3: "book and immediate check start, caseworker and mødeform [...] A form is refused, never silently changed"."""

    @pytest.mark.parametrize(
        ("wanted", "reason"),
        [
            (wish(minutes=30), Reason.TIME_NOT_OFFERED),
            (wish(who="nobody"), Reason.CASEWORKER_NOT_OFFERED),
            (wish(MeetingForm.DIGITAL, who="b"), Reason.FORM_NOT_OFFERED),
        ],
    )
    def test_what_is_not_offered_is_refused_by_its_name(self, wanted: Wish, reason: Reason) -> None:
        found = [time_of(who="a"), time_of(who="b", forms=(MeetingForm.TELEPHONE,))]
        with pytest.raises(Refused) as refusal:
            check_choice(wanted, found)
        assert refusal.value.reason is reason

    def test_no_times_at_all_refuses_the_time(self) -> None:
        with pytest.raises(Refused) as refusal:
            check_choice(wish(), [])
        assert refusal.value.reason is Reason.TIME_NOT_OFFERED

    def test_a_form_that_another_caseworker_has_at_that_start_will_do_when_none_was_asked_for(self) -> None:
        found = [time_of(who="a", forms=(MeetingForm.IN_PERSON,)), time_of(who="b")]
        check_choice(wish(MeetingForm.DIGITAL), found)


def booking(**changes: object) -> Booking:
    facts: dict[str, object] = {
        "invitation_id": uuid4(),
        "offer_id": uuid4(),
        "starts_at": START,
        "ends_at": START + timedelta(minutes=30),
        "form": MeetingForm.TELEPHONE,
        "caseworker": Caseworker(id="a", name="A"),
        "accepted": True,
        "can_rebook": True,
        "can_cancel": True,
    }
    return Booking.model_validate({**facts, **changes}, by_name=True)


class TestMoving:
    """A rebooking first reads the booking (docs/contract.md#calls)."""

    @pytest.mark.parametrize(
        ("held", "reason"),
        [
            (None, Reason.UNKNOWN_BOOKING),
            (booking(can_rebook=False), Reason.REBOOKING_NOT_POSSIBLE),
            (booking(rebook_by=START - timedelta(days=40)), Reason.REBOOKING_NOT_POSSIBLE),
        ],
    )
    def test_what_may_not_be_moved_is_refused(self, held: Booking | None, reason: Reason) -> None:
        with pytest.raises(Refused) as refusal:
            check_movable(held, now=START - timedelta(days=30))
        assert refusal.value.reason is reason

    def test_a_meeting_before_its_ombookingsfrist_may_be_moved(self) -> None:
        check_movable(booking(rebook_by=START), now=START - timedelta(days=1))


def test_the_id_of_a_new_booking_is_the_same_for_every_try_of_a_request() -> None:
    request_id = UUID("7d7f2f0e-6e0b-4c55-9d30-0d6a53b7a001")
    assert invitation_of(request_id) == invitation_of(request_id)
    assert invitation_of(request_id) != invitation_of(uuid4())
