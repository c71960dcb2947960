"""The byte stream below the library: frames reach their sinks, all other bytes reach the library unchanged."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pamqp.frame
import pytest
from aiormq.abc import AbstractChannel
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from broker.errors import RabbitAway
from broker.rabbitmq import Outgoing, Published, Rabbit, transport
from broker.rabbitmq.frames import ConsumeTap, EncodedPublish, PublishTap
from broker.rabbitmq.transport import Transport
from tests.certificates import Certificates, made_in
from tests.rabbitmq import foreign
from tests.rabbitmq.conftest import Seen, settings_for
from tests.support import poll

BUSY = 1


class FakeTransport(asyncio.Transport):
    """Keeps the written bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return False


class FakeConnection:
    """The part of the library's connection that frames.py uses."""

    class connection_tune:
        frame_max = 256


class FakeChannel:
    """The part of the library's channel that frames.py uses."""

    def __init__(self, below: Transport) -> None:
        self.number = BUSY
        self.connection = FakeConnection()
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_closed = False
        transport._transports[cast(Any, self.connection)] = below


class OfflineStream:
    """A transport without a network, with a channel on it."""

    def __init__(self) -> None:
        self._reader, self.transport = asyncio.StreamReader(), FakeTransport()
        self.stream = Transport(self._reader, asyncio.get_running_loop())
        self.stream._socket = self.transport
        self.channel = FakeChannel(self.stream)

    @property
    def fed(self) -> bytes:
        """The bytes that the library gets."""
        return bytes(cast(Any, self._reader)._buffer)

    def library_channel(self) -> AbstractChannel:
        return cast(AbstractChannel, self.channel)


def marshalled(*frames: Any, channel: int = BUSY) -> bytes:
    return b"".join(pamqp.frame.marshal(frame, channel) for frame in frames)


def delivered(tag: int, body: bytes, *, redelivered: bool = False) -> bytes:
    properties = Basic.Properties(message_type="a.v1", headers={"x": 1})
    parts = [ContentBody(body[at : at + 100]) for at in range(0, len(body), 100)]
    head = Basic.Deliver("tag", tag, redelivered, "exchange", "key")
    return marshalled(head, ContentHeader(0, len(body), properties), *parts)


BODIES = st.lists(st.binary(max_size=450), max_size=5)
CUTS = st.lists(st.integers(1, 60), min_size=1, max_size=30)


@settings(deadline=None)
@given(bodies=BODIES, cuts=CUTS)
def test_each_frame_reaches_its_sink_however_the_network_cuts_the_bytes(
    bodies: list[bytes], cuts: list[int]
) -> None:
    async def story() -> None:
        offline, got = OfflineStream(), list[Any]()
        ConsumeTap(offline.library_channel(), lambda _, *delivery: got.append(delivery))
        # Given arrivals between other frames
        others = [
            marshalled(Channel.Flow(True), channel=number % 3 + (number % 3 == BUSY)) for number in range(6)
        ]
        sent = others[0]
        for tag, body in enumerate(bodies, 1):
            sent += delivered(tag, body, redelivered=tag % 2 == 0) + others[tag]
        # When the bytes come in pieces
        at, number = 0, 0
        while at < len(sent):
            step = cuts[number % len(cuts)]
            offline.stream.data_received(sent[at : at + step])
            at, number = at + step, number + 1
        # Then the arrivals are whole and in order, and the library gets the rest byte for byte
        assert [(tag, redelivered, body) for tag, redelivered, _, body in got] == [
            (tag, tag % 2 == 0, body) for tag, body in enumerate(bodies, 1)
        ]
        assert all(p.message_type == "a.v1" and p.headers == {"x": 1} for _, _, p, _ in got)
        assert offline.fed == b"".join(others[: len(bodies) + 1])

    asyncio.run(story())


@settings(deadline=None)
@given(
    body=st.binary(max_size=700),
    key=st.text(max_size=60),
    correlation_id=st.none() | st.text(max_size=60),
    reply_to=st.none() | st.text(max_size=60),
    headers=st.dictionaries(
        st.text(min_size=1, max_size=20), st.integers(-5, 5) | st.text(max_size=20), max_size=3
    ),
    persistent=st.booleans(),
)
def test_the_library_reads_the_written_frames(body: bytes, key: str, **given_: Any) -> None:
    async def story() -> None:
        offline = OfflineStream()
        out = Outgoing("exchange", key, body, "answer.v1", **given_)
        ready = EncodedPublish.of(out)
        PublishTap(offline.library_channel()).publish(ready, within=5).cancel()
        frames: list[Any] = []
        rest = offline.transport.written
        while rest:
            consumed, channel, frame = pamqp.frame.unmarshal(rest)
            assert channel == BUSY
            assert not isinstance(frame, ContentBody) or consumed <= FakeConnection.connection_tune.frame_max
            frames.append(frame)
            rest = rest[consumed:]
        publish, header, *parts = frames
        assert (publish.exchange, publish.routing_key, publish.mandatory) == ("exchange", key, True)
        assert b"".join(part.value for part in parts) == body
        assert header.body_size == len(body)
        read = header.properties
        assert (read.correlation_id, read.reply_to) == (out.correlation_id, out.reply_to)
        assert (read.headers or {}) == dict(out.headers)
        assert (read.message_type, read.content_type) == ("answer.v1", "application/json")
        assert read.message_id == ready.message_id
        assert read.delivery_mode == (2 if out.persistent else 1)

    asyncio.run(story())


async def test_each_publish_gets_its_own_confirm() -> None:
    offline = OfflineStream()
    publishing = PublishTap(offline.library_channel())
    ready = [EncodedPublish.of(Outgoing("", "q", b"%d" % number)) for number in range(6)]
    words = [publishing.publish(each, within=5) for each in ready]
    # The third is returned before its Ack, the first two are confirmed together, the fifth is refused
    returned = Basic.Properties(message_id=ready[2].message_id)
    offline.stream.data_received(
        marshalled(Basic.Return(312, "NO_ROUTE", "", "q"), ContentHeader(0, 1, returned), ContentBody(b"2"))
        + marshalled(Basic.Ack(2, multiple=True), Basic.Ack(3), Basic.Ack(4), Basic.Nack(5))
    )
    assert [word.result() for word in words[:5]] == [
        Published.CONFIRMED,
        Published.CONFIRMED,
        Published.UNROUTABLE,
        Published.CONFIRMED,
        Published.REFUSED,
    ]
    # The sixth, without an answer, fails when the channel closes
    assert not words[5].done()
    offline.channel.is_closed = True
    offline.channel.closing.set_exception(ConnectionResetError("gone"))
    with pytest.raises(RabbitAway, match="gone"):
        await words[5]
    with pytest.raises(RabbitAway):
        publishing.publish(ready[0], within=5)
    assert offline.fed == b""


async def test_a_publish_without_an_answer_times_out() -> None:
    offline = OfflineStream()
    word = PublishTap(offline.library_channel()).publish(
        EncodedPublish.of(Outgoing("", "q", b"")), within=0.01
    )
    with pytest.raises(RabbitAway, match="no answer in time"):
        await word


async def test_bytes_that_are_no_frame_go_to_the_library_with_all_that_follow() -> None:
    offline = OfflineStream()
    good = marshalled(Heartbeat(), channel=0)
    offline.stream.data_received(good + b"AMQP\x00\x00\x09\x01")
    assert offline.fed == good + b"AMQP\x00\x00\x09\x01"
    offline.stream.data_received(b"more")
    assert offline.fed == good + b"AMQP\x00\x00\x09\x01more"
    offline.stream.eof_received()
    assert offline.fed == good + b"AMQP\x00\x00\x09\x01more", "nothing is given twice"


async def test_the_library_gets_a_heartbeat_for_frames_that_bypassed_it() -> None:
    offline = OfflineStream()
    ConsumeTap(offline.library_channel(), lambda *_: None)
    offline.stream.data_received(delivered(1, b"x"))
    assert offline.fed == b""
    offline.stream._fed_at -= 2 * transport.ALIVE_EVERY_S
    offline.stream.data_received(delivered(2, b"x") + delivered(3, b"x"))
    assert offline.fed == transport.HEARTBEAT


async def test_an_alarm_makes_a_tap_unusable_until_it_ends() -> None:
    offline = OfflineStream()
    publishing = PublishTap(offline.library_channel())
    assert publishing.usable
    blocked = b"\x00\x0a\x00\x3c\x03low"
    frame = transport.HEAD.pack(1, 0, len(blocked)) + blocked + b"\xce"
    offline.stream.data_received(frame)
    assert not publishing.usable
    offline.stream.data_received(transport.HEAD.pack(1, 0, 4) + b"\x00\x0a\x00\x3d\xce")
    assert publishing.usable


@asynccontextmanager
async def behind_tls(port: int, made: Certificates) -> AsyncIterator[int]:
    """The port of a TLS proxy in front of RabbitMQ's plain port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.server.cert, made.server.key)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_amqps_works_both_ways_and_an_untrusted_server_is_refused(vhost: str, tmp_path: Path) -> None:
    made = made_in(tmp_path)
    at = urlsplit(vhost)
    await asyncio.to_thread(foreign.declare, vhost, "q")
    async with behind_tls(at.port or 0, made) as port:
        url = vhost.replace("amqp://", "amqps://").replace(f":{at.port}/", f":{port}/")
        seen = Seen()
        async with Rabbit(settings_for(f"{url}?cafile={made.ca}"), name="tls") as rabbit:
            rabbit.subscribe("q", 10, seen)
            body = b"x" * 300_000
            assert await rabbit.publish(Outgoing("", "q", body)) is Published.CONFIRMED
            await poll(lambda: seen.bodies() == [body], what="the arrival")
            assert await seen[0].ack()
        stranger = Rabbit(settings_for(url), name="tls", start_within=2)
        with pytest.raises(RabbitAway, match="not reached"):
            await stranger.__aenter__()
