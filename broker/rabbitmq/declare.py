"""The topology on a live server: declare it, look whether it is there, and print the users of it.

Each declaration is asked for by itself, so that one that RabbitMQ refuses leaves no other undone. Nothing
is ever deleted. Bindings cannot be looked at over AMQP: `check` says nothing of them, `apply` makes them
again.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from broker.rabbitmq import Channel, Connection, DeclareRefused, asked, connected
from broker.rabbitmq.topology import (
    BINDINGS,
    EXCHANGES,
    ROLES,
    Binding,
    Exchange,
    Queue,
    queues,
)
from config.settings import Settings

APPLY = "jobnet-broker topology apply"
DIFFERS = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)'.*?: received (?P<ours>.*?) but current is (?P<theirs>.*)"
)
PASSWORD_HASH = "<the password's hash, in base64>"  # noqa: S105 - a placeholder, which RabbitMQ refuses to import
"""Not base64 on purpose: such an import is refused, instead of locking out users who have a password."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One thing to declare: its name for a person, how to ask for it, and how to look whether it exists."""

    what: str
    declare: Callable[[Channel], Awaitable[object]]
    look: Callable[[Channel], Awaitable[object]] | None = None


async def apply(settings: Settings, suppliers: Iterable[str] = ()) -> list[str]:
    """Declare everything, with a lane for each supplier; may be repeated.

    Returns a sentence for each thing that RabbitMQ refused. Raises RabbitAway.
    """
    async with connected(settings.rabbitmq.url.get_secret_value(), APPLY) as raw:
        return [s for d in declarations(settings, raw, suppliers) if (s := await _no(raw, d.what, d.declare))]


async def check(settings: Settings, suppliers: Iterable[str] = ()) -> list[str]:
    """A sentence for each exchange and queue that is missing or different; declares nothing.

    Raises RabbitAway.
    """
    async with connected(settings.rabbitmq.url.get_secret_value(), "jobnet-broker topology check") as raw:
        return [s for d in declarations(settings, raw, suppliers) if d.look and (s := await _wrong(raw, d))]


async def missing(settings: Settings, suppliers: Iterable[str]) -> list[str]:
    """A sentence for each exchange and queue that is not there; needs no right to declare, compares nothing.

    Raises RabbitAway.
    """
    async with connected(settings.rabbitmq.url.get_secret_value(), "jobnet-broker look") as raw:
        looks = [(d.what, d.look) for d in declarations(settings, raw, suppliers) if d.look]
        return [s for what, look in looks if (s := await _no(raw, what, look))]


async def _wrong(raw: Connection, declaration: Declaration) -> str | None:
    if declaration.look is None:
        return None
    missing = await _no(raw, declaration.what, declaration.look)
    # It exists, so declaring it again only compares.
    return missing or await _no(raw, declaration.what, declaration.declare)


async def _no(raw: Connection, what: str, ask: Callable[[Channel], Awaitable[object]]) -> str | None:
    try:
        await asked(raw, ask)
    except DeclareRefused as no:
        return sentence(what, str(no))
    return None


def sentence(what: str, refusal: str) -> str:
    """What is wrong and what to do, for a person, from RabbitMQ's refusal."""
    if found := DIFFERS.search(refusal):
        return (
            f"{what}: {found['argument']} is {found['theirs']} and should be {found['ours']}."
            f" RabbitMQ cannot change that: when it is empty and nobody uses it, delete it, then run {APPLY}"
        )
    if "NOT_FOUND" in refusal:
        return f"{what} is missing: run {APPLY}"
    return f"{what} was refused by RabbitMQ: {refusal}"


def declarations(settings: Settings, raw: Connection, suppliers: Iterable[str] = ()) -> Iterator[Declaration]:
    """Everything, in an order in which each finds what it refers to."""
    version = version_of(raw)
    yield from map(_exchange, EXCHANGES)
    for queue in queues(suppliers):
        yield _queue(queue, queue.arguments(settings.queues, version))
    yield from map(_binding, BINDINGS)


def version_of(raw: Connection) -> tuple[int, int]:
    """The server's (major, minor) version."""
    numbers = re.findall(r"\d+", str(raw.server_properties["version"]))
    return int(numbers[0]), int(numbers[1])


def _exchange(exchange: Exchange) -> Declaration:
    def declare(channel: Channel) -> Awaitable[object]:
        return channel.exchange_declare(
            exchange.name, exchange_type=exchange.type, durable=True, arguments=exchange.arguments
        )

    return Declaration(
        f"exchange {exchange.name}",
        declare,
        lambda channel: channel.exchange_declare(exchange.name, passive=True),
    )


def _queue(queue: Queue, arguments: dict[str, Any]) -> Declaration:
    return Declaration(
        f"queue {queue.name}",
        lambda channel: channel.queue_declare(queue.name, durable=True, arguments=arguments),
        lambda channel: channel.queue_declare(queue.name, passive=True),
    )


def _binding(binding: Binding) -> Declaration:
    return Declaration(
        f"binding of {binding.queue} to {binding.exchange} by {binding.routing_key!r}",
        lambda channel: channel.queue_bind(binding.queue, binding.exchange, binding.routing_key),
    )


def users(settings: Settings | None = None) -> dict[str, Any]:
    """RabbitMQ definitions with one user per role and its permissions, for `rabbitmqctl import_definitions`.

    In the virtual host of the settings' address ("/" without). Each `password_hash` is a placeholder to be
    replaced by base64(salt + sha256(salt + password)), salt of four bytes; until then the import is refused.
    """
    vhost = "/" if settings is None else vhost_of(settings.rabbitmq.url.get_secret_value())
    return {
        "users": [
            {
                "name": role.user,
                "password_hash": PASSWORD_HASH,
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": list(role.tags),
            }
            for role in ROLES
        ],
        "permissions": [{"user": role.user, "vhost": vhost, **role.permissions()} for role in ROLES],
        "topic_permissions": [],
    }


def vhost_of(url: str) -> str:
    """The virtual host in an AMQP address; a missing one is "/"."""
    return unquote(urlsplit(url).path[1:]) or "/"
