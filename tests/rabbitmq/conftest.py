"""Shared by the tests of RabbitMQ: settings, a node that a test may kill, a list of arrivals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import uvloop

from broker.rabbitmq import Arrival
from config.settings import Settings, build
from scripts.rabbitmq import RabbitNode, RabbitServer

QUICK = {
    "heartbeat_seconds": 5,
    "publish_timeout_seconds": 5,
    "reconnect_min_seconds": 0.05,
    "reconnect_max_seconds": 1,
}


def settings_for(url: str, **sections: dict[str, Any]) -> Settings:
    """Settings with short pauses, overridden by `sections`."""
    rabbitmq = {"url": url, **QUICK, **sections.pop("rabbitmq", {})}
    return build({"rabbitmq": rabbitmq, **sections})


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on uvloop, as production does. The other tests run on asyncio's own loop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def settings(vhost: str) -> Settings:
    return settings_for(vhost)


@pytest.fixture(scope="module")
def own_node(run_folder: Path, request: pytest.FixtureRequest) -> Iterator[RabbitNode]:
    """A RabbitMQ that a test may kill, block and starve."""
    node = RabbitNode(run_folder / f"rabbit-{request.module.__name__.rpartition('.')[2]}")
    node.start()
    yield node
    node.kill()


class Seen(list[Arrival]):
    """Arrivals in their order; passed as `on_arrival`."""

    def __call__(self, arrival: Arrival) -> None:
        self.append(arrival)

    def bodies(self) -> list[bytes]:
        return [arrival.body for arrival in self]


def close_connections_of(server: RabbitServer, name: str) -> None:
    """Both connections of that name, as soon as the management API shows them."""
    closed: set[str] = set()
    until = time.monotonic() + 20
    while len(closed) < 2 and time.monotonic() < until:
        for row in server.api("GET", "/connections"):
            if name in str(row.get("client_properties")) and row["name"] not in closed:
                with suppress(LookupError):
                    server.api("DELETE", f"/connections/{quote(row['name'])}")
                closed.add(row["name"])
        time.sleep(0.1)
