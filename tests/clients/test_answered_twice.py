"""An answer belongs to its call: servers that answer a call twice on a kept connection (docs/contract.md#calls)."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Self
from uuid import UUID, uuid4

import pytest

from broker.clients.booking import BookingSystem
from broker.clients.http import HttpSystem
from broker.clients.supplier import Supplier
from broker.errors import BrokerError, Refused, Unavailable, Unknown
from config.suppliers import Supplier as SupplierConfig
from schemas.codes import MeetingForm
from schemas.external import Wish
from tests.clients.support import BOOKING, INVITATION, OFFER, caller, fault, http, limits, system
from tests.clients.test_supplier import REPORT, X_REQUEST_ID

pytestmark = pytest.mark.integration

OTHER = UUID("0f0f0f0f-0000-4000-8000-0000000000ff")
DELAYS = [0.05, 0.25, 0.95]  # of the second answer
SLOW = 0.4  # the server thinks this long over its own answer to the second call


class TwiceServer(threading.Thread):
    """Answers the first request at once and, `delay` s later, again; each other one after `slow` s. In its own thread."""

    def __init__(self, first: bytes, later: bytes, delay: float, slow: float = SLOW) -> None:
        super().__init__(daemon=True)
        self._first, self._later, self._delay, self._slow = first, later, delay, slow
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections: list[int] = []  # of each request
        self._accepted: list[socket.socket] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._accepted):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._accepted.append(connection)
                threading.Thread(
                    target=self._serve, args=(connection, len(self._accepted)), daemon=True
                ).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError):
            while connection.recv(65_536):
                self.connections.append(number)
                if len(self.connections) == 1:
                    connection.sendall(self._first)
                    threading.Timer(self._delay, self._send, (connection, self._first)).start()
                else:
                    threading.Timer(self._slow, self._send, (connection, self._later)).start()

    @staticmethod
    def _send(connection: socket.socket, answer: bytes) -> None:
        with suppress(OSError):
            connection.sendall(answer)


def times(name: str) -> bytes:
    time_ = {
        "starttidspunkt": "2031-03-03T09:00:00+01:00",
        "sluttidspunkt": "2031-03-03T09:30:00+01:00",
        "sagsbehandler": {"id": name, "navn": name},
        "moedeformer": ["telefonisk"],
    }
    return http(200, {"tider": [time_]})


def calm(url: str, **changes: Any) -> HttpSystem:
    return system(url, **({"quiet_ms": 1000, "total_timeout_seconds": 2, "retry_first_ms": 5000} | changes))


WISH = Wish(
    offer_id=OFFER,
    starts_at="2031-03-03T09:00:00+01:00",
    form=MeetingForm.TELEPHONE,
)


@pytest.mark.parametrize("wait", [0.0, 0.1])
@pytest.mark.parametrize("delay", DELAYS)
async def test_a_second_204_is_not_the_answer_to_the_next_cancel(delay: float, wait: float) -> None:
    with TwiceServer(http(204), fault(409, "aflysning-ikke-mulig"), delay) as server:
        async with calm(server.url) as to:
            booking = BookingSystem(to)
            await booking.cancel(caller(), INVITATION)
            await asyncio.sleep(wait)
            with pytest.raises(Refused):
                await booking.cancel(caller(), OTHER)
    assert len(set(server.connections)) == 2


@pytest.mark.parametrize("quiet_ms", [0, 1000])
async def test_a_cancel_takes_a_new_connection_also_after_a_call_of_another_kind(quiet_ms: float) -> None:
    """A second answer to a read comes before the cancel, and one to the cancel before the next read."""
    with TwiceServer(times("anna"), http(204), 0.1) as server:
        async with calm(server.url, quiet_ms=quiet_ms) as to:
            booking = BookingSystem(to)
            await booking.times(caller(), OFFER)
            await booking.cancel(caller(), INVITATION)
    assert server.connections == [1, 2]


@pytest.mark.parametrize("wait", [0.0, 0.1])
@pytest.mark.parametrize("delay", DELAYS)
async def test_the_times_of_one_citizen_are_not_given_to_the_next(delay: float, wait: float) -> None:
    with TwiceServer(times("anna"), times("bo"), delay) as server:
        async with calm(server.url) as to:
            booking = BookingSystem(to)
            await booking.times(caller(), OFFER)
            await asyncio.sleep(wait)
            (got,) = await booking.times(caller(), OTHER)
    assert got.caseworker.id == "bo"


@pytest.mark.parametrize("delay", DELAYS)
async def test_a_second_reservation_is_not_the_next_citizens(delay: float) -> None:
    with TwiceServer(
        http(200, {"reserveretTil": "2031-03-03T09:00:00+01:00"}), fault(409, "tid-optaget"), delay
    ) as server:
        async with calm(server.url) as to:
            booking = BookingSystem(to)
            await booking.reserve(caller(), INVITATION, WISH)
            with pytest.raises(Refused):
                await booking.reserve(caller(), OTHER, WISH)


@pytest.mark.parametrize("delay", DELAYS)
async def test_a_second_refusal_is_not_the_answer_to_the_next_create(delay: float) -> None:
    with TwiceServer(fault(409, "tid-optaget"), http(201, BOOKING), delay) as server:
        async with calm(server.url) as to:
            booking = BookingSystem(to)
            with pytest.raises(Refused):
                await booking.create(caller(), OTHER, WISH)
            assert (await booking.create(caller(), INVITATION, WISH)).invitation_id == INVITATION


@pytest.mark.parametrize("delay", DELAYS)
async def test_a_second_receipt_does_not_deliver_the_next_report(delay: float) -> None:
    with TwiceServer(http(204), http(500), delay) as server:
        config = SupplierConfig(name="Nordlys A/S", base_url=server.url, allow_http=True)
        to = HttpSystem("nordlys", config, limits(total_timeout_seconds=2))
        supplier = Supplier("nordlys", config, to)
        await supplier.deliver(REPORT, x_request_id=X_REQUEST_ID, attempt=1)
        with pytest.raises(Unavailable, match="status 500"):
            await supplier.deliver(REPORT, x_request_id=X_REQUEST_ID, attempt=2)
        await to.close()


@pytest.mark.parametrize("wait_in_the_loop", [False, True])
async def test_a_kept_connection_on_which_anything_lies_is_thrown_away(wait_in_the_loop: bool) -> None:
    """Also what the event loop has not read, because it was busy: without quiet_ms only the look at the socket helps."""
    with TwiceServer(times("anna"), times("bo"), 0.05) as server:
        async with calm(server.url, quiet_ms=0) as to:
            booking = BookingSystem(to)
            await booking.times(caller(), OFFER)
            if wait_in_the_loop:
                await asyncio.sleep(0.2)
            else:
                time.sleep(0.2)  # noqa: ASYNC251 - the loop is busy
            (got,) = await booking.times(caller(), OTHER)
    assert got.caseworker.id == "bo"
    assert server.connections == [1, 2]


async def test_half_an_answer_on_a_kept_connection_is_seen_and_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with TwiceServer(times("anna") + b"HTTP/1.1 20", times("bo"), 0.05) as server:
        async with calm(server.url, quiet_ms=0) as to:
            booking = BookingSystem(to)
            await booking.times(caller(), OFFER)
            await asyncio.sleep(0.2)
            (got,) = await booking.times(caller(), OTHER)
    assert got.caseworker.id == "bo"
    assert "answer-out-of-turn" in "".join(capfd.readouterr())


async def test_a_connection_is_used_again_after_its_silence() -> None:
    with TwiceServer(times("anna"), times("bo"), 60, slow=0) as server:
        async with calm(server.url, quiet_ms=200) as to:
            booking = BookingSystem(to)
            await booking.times(caller(), OFFER)
            await booking.times(caller(), OFFER)
            await asyncio.sleep(0.25)
            await booking.times(caller(), OFFER)
            await booking.times(caller(), OFFER)
    assert server.connections == [1, 2, 1, 2]


async def test_a_booking_of_another_offer_is_not_the_answer_to_a_create() -> None:
    with TwiceServer(http(201, BOOKING | {"moedetilbudId": str(OTHER)}), http(500), 60) as server:
        async with calm(server.url) as to:
            with pytest.raises(Unknown, match="body"):
                await BookingSystem(to).create(caller(), INVITATION, WISH)


@pytest.mark.parametrize("echoed", [True, False])
async def test_a_system_that_echoes_the_request_id_may_use_any_connection_and_must_echo_it(
    echoed: bool,
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                line = next(line for line in head.split("\r\n") if line.startswith("x-requestId"))
                writer.write(http(204, b"", line if echoed else f"x-requestId: {uuid4()}"))

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with calm(url, echoes_request_id=True) as to:
        outcomes = []
        for _ in range(3):
            try:
                await BookingSystem(to).cancel(caller(0.5), INVITATION)
            except BrokerError as error:
                outcomes.append(str(error).split(":")[1].split(" after")[0].strip())
    server.close()
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    assert outcomes == ([] if echoed else ["other-request-id"] * 3)
    assert not echoed or len(writers) == 1
