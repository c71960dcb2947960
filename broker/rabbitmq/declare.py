"""The topology on a live server: declare it, check that it exists, and print its users.

Each declaration is made on a channel of its own, so that a refused one does not stop the others. Nothing is deleted.
AMQP cannot look up bindings: `check` does not cover them, `apply` declares them again.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from broker.rabbitmq import Channel, Connection, DeclareRefused, on_own_channel, temporary_connection
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
DIFFERENT_ARGUMENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)'.*?: received (?P<wanted>.*?) but current is (?P<current>.*)"
)
# Not base64 on purpose: RabbitMQ refuses to import it. An empty hash would be imported and lock the users out.
PASSWORD_HASH = "<the password's hash, in base64>"  # noqa: S105 - a placeholder


@dataclass(frozen=True, slots=True)
class Declaration:
    """One exchange, queue or binding: a name for messages, how to declare it, and how to look up whether it exists."""

    name: str
    declare: Callable[[Channel], Awaitable[object]]
    look_up: Callable[[Channel], Awaitable[object]] | None = None


async def apply(settings: Settings, suppliers: Iterable[str] = ()) -> list[str]:
    """Declare the whole topology, with a lane for each supplier; may be repeated.

    Returns a sentence for each refused declaration. Raises RabbitAway.
    """
    async with temporary_connection(settings.rabbitmq.url.get_secret_value(), APPLY) as connection:
        return [
            problem
            for item in declarations(settings, connection, suppliers)
            if (problem := await _refusal(connection, item.name, item.declare))
        ]


async def check(settings: Settings, suppliers: Iterable[str] = ()) -> list[str]:
    """A sentence for each exchange and queue that is missing or different. Declares nothing. Raises RabbitAway."""
    url = settings.rabbitmq.url.get_secret_value()
    async with temporary_connection(url, "jobnet-broker topology check") as connection:
        return [
            problem
            for item in declarations(settings, connection, suppliers)
            if (problem := await _difference(connection, item))
        ]


async def missing(settings: Settings, suppliers: Iterable[str]) -> list[str]:
    """A sentence for each missing exchange and queue. Arguments are not compared; needs no right to declare.

    Raises RabbitAway.
    """
    async with temporary_connection(
        settings.rabbitmq.url.get_secret_value(), "jobnet-broker look"
    ) as connection:
        return [
            problem
            for item in declarations(settings, connection, suppliers)
            if item.look_up and (problem := await _refusal(connection, item.name, item.look_up))
        ]


async def _difference(connection: Connection, item: Declaration) -> str | None:
    if item.look_up is None:
        return None
    missing = await _refusal(connection, item.name, item.look_up)
    # It exists, so declaring it again only compares the arguments.
    return missing or await _refusal(connection, item.name, item.declare)


async def _refusal(
    connection: Connection, name: str, action: Callable[[Channel], Awaitable[object]]
) -> str | None:
    try:
        await on_own_channel(connection, action)
    except DeclareRefused as refused:
        return advice(name, str(refused))
    return None


def advice(name: str, refusal: str) -> str:
    """A sentence for a person: what is wrong, and what to do about it."""
    # Arguments cannot be changed: docs/rabbitmq.md#t25.
    if found := DIFFERENT_ARGUMENT.search(refusal):
        return (
            f"{name}: {found['argument']} is {found['current']} and should be {found['wanted']}."
            f" RabbitMQ cannot change that: when it is empty and nobody uses it, delete it, then run {APPLY}"
        )
    if "NOT_FOUND" in refusal:
        return f"{name} is missing: run {APPLY}"
    return f"{name} was refused by RabbitMQ: {refusal}"


def declarations(
    settings: Settings, connection: Connection, suppliers: Iterable[str] = ()
) -> Iterator[Declaration]:
    """The whole topology; each item comes after those that it refers to."""
    version = version_of(connection)
    yield from map(_exchange, EXCHANGES)
    for queue in queues(suppliers):
        yield _queue(queue, queue.arguments(settings.queues, version))
    yield from map(_binding, BINDINGS)


def version_of(connection: Connection) -> tuple[int, int]:
    """The server's (major, minor) version."""
    numbers = re.findall(r"\d+", str(connection.server_properties["version"]))
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

    The permissions are for the virtual host in the settings' address ("/" without settings). Each `password_hash` is a
    placeholder: replace it by base64(salt + sha256(salt + password)), with a salt of four bytes. RabbitMQ refuses to
    import a placeholder.
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
