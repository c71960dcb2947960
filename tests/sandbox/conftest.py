"""A sandbox for each test, an HTTP client of its booking systems, and a stand-in for the broker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import aiohttp
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from sandbox.booking_system import BookingServer
from sandbox.frontend import OUTCOMES, REQUESTS
from sandbox.servers import Sandbox
from sandbox.system_layout import offer_id, slot_time

CUT = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError)
ANNA, BO = "0101364001", "0202354002"
JOBCENTER = "90001"
# What an aiohttp client raises when the server cuts the connection.
CUT = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError)


@dataclass
class Response:
    """Status and JSON (or text) of a response."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def fault(self) -> str | None:
        return str(self.body["type"]).rpartition(":")[2] if isinstance(self.body, dict) else None


@dataclass
class Plain:
    """Calls one booking system for a citizen, with the headers of the contract unless others are given."""

    http: aiohttp.ClientSession
    system: BookingServer
    cpr: str = ANNA
    headers: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        sent = {
            "x-civilregistrationIdentifier": self.cpr,
            "x-requestId": str(uuid4()),
            "x-activeOrganisation": JOBCENTER,
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"{self.system.base_url}{path}"
        call = self.http.request(method, url, json=body, headers=sent, allow_redirects=False)
        async with call as response:
            text = await response.text()
            is_json = "json" in response.content_type
            return Response(
                response.status,
                await response.json(content_type=None) if is_json else text,
                dict(response.headers),
            )

    async def times(self, kind: str = "samtale", query: str = "") -> Response:
        return await self.call(
            "GET", f"/v1/BorgerBooking/Moedetilbud/{offer_id(JOBCENTER, kind)}/Tider{query}"
        )

    async def find(self, invitation: UUID, **headers: str) -> Response:
        return await self.call("GET", f"/v1/BorgerBooking/Booking/{invitation}", **headers)

    async def reserve(self, invitation: UUID, wish: dict[str, Any], **headers: str) -> Response:
        path = f"/v1/BorgerBooking/Booking/{invitation}/action/reserver"
        return await self.call("POST", path, wish, **headers)

    async def create(self, invitation: UUID, wish: dict[str, Any], **headers: str) -> Response:
        return await self.call("POST", f"/v1/BorgerBooking/Booking/{invitation}", wish, **headers)

    async def accept(self, invitation: UUID) -> Response:
        return await self.call("POST", f"/v1/BorgerBooking/Booking/{invitation}/action/accepter")

    async def cancel(self, invitation: UUID) -> Response:
        return await self.call("DELETE", f"/v1/BorgerBooking/Booking/{invitation}")

    async def book(self, wish: dict[str, Any]) -> UUID:
        invitation = uuid4()
        assert (await self.reserve(invitation, wish)).status == 200
        assert (await self.create(invitation, wish)).status == 201
        return invitation

    def at(self, number: int = 0, day: int = 0) -> datetime:
        return slot_time(next(iter(self.system.book.slots.values()))[0].starts_at.date(), day, number)

    def wish(
        self, number: int = 0, form: str = "personligtFremmoede", *, worker: int | None = 1
    ) -> dict[str, Any]:
        wish = {
            "moedetilbudId": str(offer_id(JOBCENTER, "samtale")),
            "starttidspunkt": self.at(number).isoformat(),
            "moedeform": form,
        }
        return wish if worker is None else wish | {"sagsbehandlerId": f"{JOBCENTER}-samtale-{worker}"}


def move(wish: dict[str, Any]) -> dict[str, Any]:
    """The body for a move: the wish without the offer."""
    return {name: value for name, value in wish.items() if name != "moedetilbudId"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture
def system(sandbox: Sandbox) -> BookingServer:
    return sandbox.booking_system_of(JOBCENTER)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture
def anna(http: aiohttp.ClientSession, system: BookingServer) -> Plain:
    return Plain(http, system)


@pytest.fixture
def bo(http: aiohttp.ClientSession, system: BookingServer) -> Plain:
    return Plain(http, system, cpr=BO)


class Echo:
    """A stand-in for the broker: answers every request with its own content, `copies` times."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.copies = 1
        self.reply_to: list[str] = []

    async def answer(self, message: AbstractIncomingMessage) -> None:
        self.reply_to.append(message.reply_to or "")
        answer = {
            "status": "done",
            "type": message.type,
            "key": message.routing_key,
            "body": json.loads(message.body),
        }
        for _ in range(self.copies):
            await self.publish(message.reply_to or "", answer, correlation_id=message.correlation_id)

    async def publish(self, key: str, body: Any, *, exchange: str = "", **more: Any) -> None:
        to = (
            await self.channel.get_exchange(exchange, ensure=False)
            if exchange
            else self.channel.default_exchange
        )
        await to.publish(aio_pika.Message(json.dumps(body).encode(), **more), key, mandatory=False)


@pytest.fixture
async def echo(vhost: str) -> AsyncIterator[Echo]:
    async with await aio_pika.connect(vhost) as connection:
        channel = await connection.channel()
        requests = await channel.declare_exchange(REQUESTS, "topic")
        await channel.declare_exchange(OUTCOMES, "topic")
        queue = await channel.declare_queue("work")
        await queue.bind(requests, "#")
        running = Echo(channel)
        await queue.consume(running.answer, no_ack=True)
        yield running
