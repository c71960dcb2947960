"""Causes of dead letters, the properties that are kept of a message, and where a replay is published."""

from __future__ import annotations

import pytest

from broker.dead_letters.headers import (
    PROPERTIES,
    LetterProperties,
    class_of,
    death_cause,
    properties_header,
    properties_of,
    sealed_properties,
)
from broker.dead_letters.reconcile import must_rotate
from broker.dead_letters.replayer import work_queue_of
from broker.ledger.dead_letters.places import QueueBalance
from broker.rabbitmq import Arrival
from broker.rabbitmq.properties import MAX_HEADER_BYTES


@pytest.mark.parametrize(
    ("cause", "whose"),
    [
        ("invalid", "message"),
        ("no-reply-to", "message"),
        ("unroutable", "setup"),
        ("exhausted", "moment"),
        ("crash", "ours"),
        ("never heard of", "ours"),
    ],
)
def test_a_cause_is_somebodys_fault(cause: str, whose: str) -> None:
    assert class_of(cause) == whose


def test_properties_survive_their_seal() -> None:
    kept = properties_of(Arrival("q", type="a.v1", reply_to="r", headers={"traceparent": "00-1", "n": 3}))
    assert LetterProperties.from_json(kept.to_json()) == kept


@pytest.mark.parametrize("name", ["x-death", "x-first-death-queue", "x-delivery-count", "x-jobnet-pass"])
def test_what_rabbitmq_and_we_wrote_on_a_message_is_not_replayed(name: str) -> None:
    """A copied x-death makes RabbitMQ before 4.0.1 drop the message (docs/rabbitmq.md#t12)."""
    assert properties_of(Arrival("q", headers={name: "1", "theirs": "2"})).headers == {"theirs": "2"}


def test_headers_that_nest_are_left_out() -> None:
    assert properties_of(Arrival("q", headers={"a": {"b": 1}, "c": [1], "d": b"x"})).headers == {}


def test_too_many_headers_leave_room_for_the_letters_own() -> None:
    many = {f"name-{number}": "x" * 100 for number in range(200)}
    kept = properties_of(Arrival("q", headers={**many, "traceparent": "00-1"}))
    assert kept.headers == {"traceparent": "00-1"}
    most = properties_of(Arrival("q", correlation_id="c" * 255, headers={"a": "ø" * 600}))
    assert len(properties_header(most.to_json() + b"s" * 100)[PROPERTIES]) < MAX_HEADER_BYTES / 2


@pytest.mark.parametrize("damaged", [7, "not base64!", None])
def test_damaged_properties_are_no_properties(damaged: object) -> None:
    assert sealed_properties(Arrival("q", headers={PROPERTIES: damaged})) is None


@pytest.mark.parametrize(
    ("queue", "reason", "cause"),
    [
        ("jobnet.unrouted.dead", None, "unrouted"),
        ("jobnet.bookings.dead", "delivery_limit", "delivery-limit"),
        ("jobnet.bookings.dead", "0101364001", "unknown"),
        ("jobnet.bookings.dead", None, "unknown"),
    ],
    ids=["unrouted", "delivery limit", "a stranger's word", "nothing said"],
)
def test_a_cause_is_a_word_of_ours(queue: str, reason: str | None, cause: str) -> None:
    headers = {"x-first-death-reason": reason} if reason else {}
    assert death_cause(Arrival(queue, headers=headers)) == cause


@pytest.mark.parametrize(
    ("queue", "key", "type_", "goes_to"),
    [
        ("jobnet.bookings.dead", "jobnet.answers.x", None, "jobnet.bookings"),
        ("jobnet.unrouted.dead", "booking.book", None, "jobnet.bookings"),
        ("jobnet.unrouted.dead", "wrong", "query.times.v1", "jobnet.queries"),
    ],
)
def test_a_replay_goes_where_the_table_says(queue: str, key: str, type_: str | None, goes_to: str) -> None:
    assert work_queue_of(queue, LetterProperties(type=type_, routing_key=key)) == goes_to


def test_a_replay_without_a_queue_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="no queue takes"):
        work_queue_of("jobnet.unrouted.dead", LetterProperties(type="a.v1", routing_key="jobnet.bookings"))


@pytest.mark.parametrize(
    ("balance", "depth", "rotate"),
    [
        (QueueBalance("q", 5, 5, 0, 0, False, 1), 5, False),
        (QueueBalance("q", 6, 5, 1, 0, False, 1), 5, False),
        (QueueBalance("q", 5, 5, 0, 0, False, 1), 6, True),
        (QueueBalance("q", 5, 5, 0, 0, False, 1), 0, True),
        (QueueBalance("q", 4, 5, 0, 1, False, 1), 5, True),
        (QueueBalance("q", 5, 5, 0, 0, True, 1), 5, True),
        (QueueBalance("q", 5, 5, 0, 0, False, 700), 5, True),
    ],
    ids=[
        "all well",
        "one to add",
        "a foreign message",
        "purged",
        "one to remove",
        "a rotation was cut off",
        "long ago",
    ],
)
def test_a_queue_is_rotated_when_it_may_differ(balance: QueueBalance, depth: int, rotate: bool) -> None:
    assert must_rotate(balance, depth) is rotate
