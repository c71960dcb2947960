"""Shared by the tests of RabbitMQ: settings, a node that a test may kill, a list of arrivals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from broker.rabbitmq import Arrival
from config.settings import Settings, build
from scripts.rabbitmq import RabbitNode
from tests.support import poll

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


async def until(condition: Callable[[], Awaitable[bool]], *, within: float = 20.0, what: str) -> None:
    """`poll` for an async condition, typed for mypy."""
    typed: Callable[[], bool | Awaitable[bool]] = condition
    await poll(typed, timeout=within, what=what)


class Seen(list[Arrival]):
    """Arrivals in their order; passed as `on_arrival`."""

    def __call__(self, arrival: Arrival) -> None:
        self.append(arrival)

    def bodies(self) -> list[bytes]:
        return [arrival.body for arrival in self]
