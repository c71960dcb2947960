"""The table of routes agrees with messages, queues and rules."""

from __future__ import annotations

from broker.rabbitmq.topology import BOOKINGS, CITIZEN_REPORTS, ROUTING_KEYS
from broker.requests.routes import ROUTES
from schemas.requests import REQUESTS


def test_every_message_that_can_be_read_has_a_route_and_no_other() -> None:
    assert {type_: route.message for type_, route in ROUTES.items()} == REQUESTS


def test_every_route_is_on_the_queue_that_its_routing_key_is_bound_to() -> None:
    bound = {key: queue for queue, keys in ROUTING_KEYS.items() for key in keys}
    assert {type_.rpartition(".")[0]: route.queue for type_, route in ROUTES.items()} == bound


def test_no_booking_query_or_time_without_a_contact_group() -> None:
    """R1: "Offers, times, book, immediate and rebook are refused [...] Cancel, accept and reporting do not need one"."""
    needing = {type_ for type_, route in ROUTES.items() if route.needs_contact_group}
    named = {"query.offers", "query.times", "booking.book", "booking.immediate", "booking.rebook"}
    assert needing == {f"{name}.v1" for name in named}


def test_only_bookings_take_their_citizens_turn_and_all_of_them_can_be_looked_up() -> None:
    """R9; only verification settles an unknown outcome (docs/architecture.md#unknown)."""
    for route in ROUTES.values():
        assert route.turn == (route.queue == BOOKINGS) == (route.lookup is not None)
        assert route.claimed == (route.queue in (BOOKINGS, CITIZEN_REPORTS))
