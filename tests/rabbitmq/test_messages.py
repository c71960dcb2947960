"""Arrivals, ack tokens, and message properties as raw bytes. No server."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broker.dead_letters.headers import LetterProperties, properties_of
from broker.rabbitmq import AckToken, Arrival, Outgoing
from broker.rabbitmq.frames import amqp_properties
from broker.rabbitmq.messages import read_arrival
from broker.rabbitmq.properties import MAX_HEADER_BYTES, salvage
from tests.rabbitmq.foreign import nested, short, table

FLAGS = Basic.Properties.flags
REST = FLAGS["reply_to"] | FLAGS["message_type"]


class FakeChannel:
    """The part of a channel that an ack token uses."""

    def __init__(self, error: Exception | None = None) -> None:
        self.is_closed = False
        self.acked: list[int] = []
        self._error = error

    async def basic_ack(self, delivery_tag: int, multiple: bool = False, wait: bool = True) -> None:
        if self._error:
            raise self._error
        self.acked.append(delivery_tag)


def header(flags: int, data: bytes) -> bytes:
    return struct.pack(">HHQH", 60, 0, 5, flags) + data


def read(data: bytes) -> ContentHeader:
    found = ContentHeader()
    found.unmarshal(data)
    return found


async def test_an_arrival_is_acknowledged_at_most_once() -> None:
    channel = FakeChannel()
    arrival = Arrival("q", ack_token=AckToken(channel, 7))
    assert not arrival.lost
    assert [await arrival.ack(), await arrival.ack()] == [True, False]
    assert channel.acked == [7]
    assert arrival.lost


async def test_an_ack_is_dropped_when_its_channel_is_closed() -> None:
    channel = FakeChannel()
    arrival = Arrival("q", ack_token=AckToken(channel, 7))
    channel.is_closed = True
    assert arrival.lost
    assert await arrival.ack() is False
    assert channel.acked == []


async def test_an_ack_never_raises() -> None:
    assert await Arrival("q", ack_token=AckToken(FakeChannel(RuntimeError("closed")), 7)).ack() is False
    assert await Arrival("q").ack() is False


def test_nothing_of_a_message_shows_in_the_repr_of_an_arrival() -> None:
    arrival = Arrival("q", b"0101364001", "0101364001", reply_to="0101364001", headers={"0101364001": 1})
    assert "0101364001" not in repr(arrival)


@pytest.mark.parametrize(
    ("redelivered", "claimed", "count"),
    [(False, 7, 0), (True, 7, 7), (True, -1, 0), (True, True, 0), (True, "7", 0), (True, None, 0)],
)
def test_the_delivery_count_is_believed_only_of_a_redelivery(
    redelivered: bool, claimed: object, count: int
) -> None:
    properties = Basic.Properties(headers={"x-delivery-count": claimed})  # type: ignore[dict-item]
    arrival = read_arrival("q", b"", properties, redelivered, AckToken(FakeChannel(), 1))
    assert arrival.delivery_count == count


@pytest.mark.parametrize(
    ("flag", "data"),
    [
        pytest.param("timestamp", struct.pack(">Q", 2**63), id="a timestamp of 2**63"),
        pytest.param("timestamp", b"\xff" * 8, id="the largest timestamp"),
        pytest.param("content_type", short(b"\xff\xfe"), id="a content type that is not UTF-8"),
        pytest.param("headers", table(b"\x02\xff\xfeV"), id="a header name that is not UTF-8"),
        pytest.param("headers", table(b"\x01aT" + b"\xff" * 8), id="a header with an impossible time"),
        pytest.param("headers", table(b"\x01aZ\x00"), id="a header of an unknown type"),
        pytest.param("headers", table(b"\x01aA\xff\xff\xff\xff"), id="a list longer than the message"),
        pytest.param("headers", nested(2000), id="two thousand tables in each other"),
        pytest.param("headers", table(b"\x00V" * MAX_HEADER_BYTES), id="very many empty headers"),
    ],
)
def test_a_property_that_cannot_be_read_is_dropped_and_the_others_are_kept(flag: str, data: bytes) -> None:
    # Given a message with one unreadable property among valid ones, in the order of the wire
    parts = {flag: data, "reply_to": short(b"jobnet.answers.x"), "message_type": short(b"booking.book.v1")}
    flags = FLAGS[flag] | REST
    ordered = b"".join(parts[name] for name in Basic.Properties.__slots__ if name in parts)
    # When the library reads it
    found = read(header(flags, ordered))
    # Then the valid ones are there
    assert found.body_size == 5
    assert getattr(found.properties, flag) is None
    assert found.properties.reply_to == "jobnet.answers.x"
    assert found.properties.message_type == "booking.book.v1"


@pytest.mark.parametrize(
    "sent", [b"\xff\xfe", b"\xed\xa0\x80", "é".encode("latin-1"), b"\xff" * 255, "é".encode(), b""]
)
def test_a_correlation_id_goes_through_byte_for_byte_and_costs_no_neighbour(sent: bytes) -> None:
    # Given a message with any bytes as its correlation id, and a header that counts deliveries
    parts = [table(b"\x10x-delivery-countI\x00\x00\x00\x07"), short(sent), short(b"r")]
    flags = FLAGS["headers"] | FLAGS["correlation_id"] | FLAGS["reply_to"]
    properties = read(header(flags, b"".join(parts))).properties
    # When it is read, kept as a dead letter is, and published again
    arrival = read_arrival("q", b"", properties, True, AckToken(FakeChannel(), 1))
    kept = LetterProperties.from_json(properties_of(arrival).to_json())
    for correlation_id in (arrival.correlation_id, kept.correlation_id):
        _, values = amqp_properties(
            Outgoing("", "q", b"", correlation_id=correlation_id, content_type=None), "m"
        )
        # Then the same bytes are on the wire, after the delivery mode
        assert values[1:].startswith(short(sent))
    assert (arrival.delivery_count, arrival.reply_to) == (7, "r")


def test_valid_properties_are_read_by_the_library() -> None:
    sent = Basic.Properties(
        headers={"traceparent": "00-ab", "n": 3},
        reply_to="r",
        message_type="t",
        timestamp=datetime(2030, 1, 1, tzinfo=UTC),
        delivery_mode=2,
    )
    assert read(struct.pack(">HHQ", 60, 0, 5) + sent.marshal()).properties == sent


@given(flags=st.integers(0, 0xFFFE), data=st.binary(max_size=300))
def test_no_bytes_at_all_make_reading_raise(flags: int, data: bytes) -> None:
    assert read(header(flags, data)).body_size == 5
    salvage(header(flags, data))
