"""The topology as data, and on a real RabbitMQ: declare, check, differences, and the roles' permissions."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from broker.errors import RabbitAway
from broker.rabbitmq import Outgoing, Published, Rabbit, declare, open_rpc_client, topology
from broker.rabbitmq.topology import (
    BINDINGS,
    BOOKINGS,
    CITIZEN_REPORTS,
    DEAD_QUEUES,
    OUTCOMES,
    QUERIES,
    QUEUES,
    REQUESTS,
    ROUTING_KEYS,
    UNROUTED,
    WORK_QUEUES,
    QueueKind,
    dead_queue_of,
    pattern_of,
)
from config.sections import QueueSettings
from config.settings import Settings
from schemas.requests import REQUESTS as REQUEST_TYPES
from scripts.rabbitmq import RabbitNode, RabbitServer
from tests.rabbitmq import foreign
from tests.rabbitmq.conftest import Seen, settings_for
from tests.support import poll

LIMITS = QueueSettings()


# ---------------------------------------------------------------------------------------------------- data
def test_every_request_type_has_its_routing_key_on_the_queue_of_its_family() -> None:
    # The routing key is the property `type` without its version: docs/contract.md#messages.
    keys = {key: queue for queue, keys in ROUTING_KEYS.items() for key in keys}
    families = {full.rpartition(".")[0]: model.FAMILY for full, model in REQUEST_TYPES.items()}
    queues = {"query": QUERIES, "booking": BOOKINGS, "report": CITIZEN_REPORTS}
    assert keys == {key: queues[family] for key, family in families.items()}
    assert {(b.routing_key, b.queue) for b in BINDINGS if b.exchange == REQUESTS} == set(keys.items())


def test_every_work_queue_has_a_dead_letter_queue() -> None:
    assert {dead_queue_of(q) for q in WORK_QUEUES} <= set(DEAD_QUEUES)
    assert dead_queue_of(BOOKINGS) == "jobnet.bookings.dead"
    assert dead_queue_of(UNROUTED) == "jobnet.unrouted.dead"


def test_every_supplier_has_a_lane_and_a_dead_letter_queue_that_is_declared_before_it() -> None:
    names = [queue.name for queue in topology.queues(["moelle", "fyrtaarn"])]
    assert names[len(QUEUES) :] == [
        "jobnet.reports.fyrtaarn.dead",
        "jobnet.reports.moelle.dead",
        "jobnet.reports.fyrtaarn",
        "jobnet.reports.moelle",
    ]


@pytest.mark.parametrize("version", [(3, 10), (3, 13), (4, 0), (4, 3)])
@pytest.mark.parametrize("queue", QUEUES, ids=lambda q: str(q.name))
def test_no_queue_can_drop_what_it_has_confirmed(queue: topology.Queue, version: tuple[int, int]) -> None:
    # docs/rabbitmq.md#t8
    arguments = queue.arguments(LIMITS, version)
    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-overflow"] == "reject-publish"
    assert arguments["x-max-length"] in (LIMITS.max_length, LIMITS.dead_max_length)
    if queue.kind is QueueKind.WORK:
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-dead-letter-exchange"] == ""
        assert arguments["x-dead-letter-routing-key"] == dead_queue_of(queue.name)
        assert arguments["x-delivery-limit"] == 1000
    else:
        # docs/rabbitmq.md#t11
        assert arguments.get("x-delivery-limit") == (-1 if version >= (4, 0) else None)
        assert "x-dead-letter-exchange" not in arguments


@pytest.mark.parametrize(
    ("names", "inside", "outside"),
    [
        ((), [], ["", "q", "jobnet.requests"]),
        (
            ("jobnet.requests",),
            ["jobnet.requests"],
            ["jobnet.requests2", "xjobnet.requests", "jobnet-requests"],
        ),
        (("amq.gen-*", "a"), ["amq.gen-Ab_1", "a"], ["amq_gen-A", "b", "xamq.gen-A"]),
    ],
)
def test_a_permission_matches_exactly_its_names(
    names: tuple[str, ...], inside: list[str], outside: list[str]
) -> None:
    assert all(re.search(pattern_of(names), name) for name in inside)
    assert not any(re.search(pattern_of(names), name) for name in outside if name)


# ---------------------------------------------------------------------------------------------------- declared
async def test_apply_can_be_repeated_and_the_check_finds_no_difference(settings: Settings) -> None:
    assert await declare.apply(settings) == []
    assert await declare.apply(settings) == []
    assert await declare.check(settings) == []


async def test_each_message_type_reaches_its_queue_and_an_unknown_one_the_unrouted_queue(
    settings: Settings, vhost: str
) -> None:
    await declare.apply(settings)
    for queue, keys in ROUTING_KEYS.items():
        for key in keys:
            await asyncio.to_thread(foreign.publish, vhost, key, (key.encode(), None), exchange=REQUESTS)
            assert (await asyncio.to_thread(foreign.get, vhost, queue))[2] == key.encode()
    await asyncio.to_thread(foreign.publish, vhost, "booking.book.v1", (b"?", None), exchange=REQUESTS)
    assert (await asyncio.to_thread(foreign.get, vhost, dead_queue_of(UNROUTED)))[2] == b"?"


async def test_the_check_names_missing_exchanges_and_queues_and_declares_none(
    settings: Settings, vhost: str
) -> None:
    wrong = await declare.check(settings)
    assert f"queue {BOOKINGS} is missing: run jobnet-broker topology apply" in wrong
    assert f"exchange {REQUESTS} is missing: run jobnet-broker topology apply" in wrong
    assert len(wrong) == len(QUEUES) + len(topology.EXCHANGES)
    assert await declare.check(settings) == wrong


async def test_a_different_queue_and_exchange_are_named_with_their_arguments_and_the_rest_is_declared(
    settings: Settings, vhost: str
) -> None:
    # Given a queue and an exchange that were declared differently
    await asyncio.to_thread(foreign.declare, vhost, QUERIES, x_max_length=5)
    await asyncio.to_thread(declare_exchange, vhost, OUTCOMES, "fanout")
    # When the topology is applied
    wrong = await declare.apply(settings)
    # Then both are reported with the argument and both values, and the rest is declared
    assert len(wrong) == 2
    assert f"exchange {OUTCOMES}: type is 'fanout' and should be 'topic'" in wrong[0]
    assert f"queue {QUERIES}: x-" in wrong[1]
    assert "delete it, then run jobnet-broker topology apply" in wrong[1]
    assert await declare.check(settings) == wrong
    await asyncio.to_thread(foreign.publish, vhost, "booking.book", (b"1", None), exchange=REQUESTS)
    assert (await asyncio.to_thread(foreign.get, vhost, BOOKINGS))[2] == b"1"


async def test_another_length_in_the_settings_is_reported_as_a_difference(
    settings: Settings, vhost: str
) -> None:
    await declare.apply(settings)
    longer = settings_for(vhost, queues={"max_length": 7})
    wrong = await declare.check(longer)
    assert [w.partition(".  ")[0][:80] for w in wrong] == [
        f"queue {q}: x-max-length is '100000' and should be '7'. RabbitMQ cannot change that"[:80]
        for q in WORK_QUEUES
    ]


def declare_exchange(url: str, name: str, kind: str) -> None:
    with foreign.channel(url) as channel:
        channel.exchange_declare(name, exchange_type=kind, durable=True)


@pytest.mark.integration
async def test_the_topology_commands_say_when_rabbitmq_is_away() -> None:
    with pytest.raises(RabbitAway):
        await declare.check(settings_for("amqp://a:b@127.0.0.1:1/"))


async def test_a_message_over_its_delivery_limit_becomes_a_dead_letter(
    settings: Settings, vhost: str
) -> None:
    # The delivery limit, here 2 instead of 1000. A connection that ends with the message in flight counts on every
    # RabbitMQ; from 4.3 on a nack does not (docs/rabbitmq.md#t14).
    arguments = topology.Queue("q", QueueKind.WORK).arguments(LIMITS, (3, 10)) | {"x-delivery-limit": 2}
    await asyncio.to_thread(foreign.declare, vhost, "q.dead")
    with foreign.channel(vhost) as channel:
        channel.queue_declare("q", durable=True, arguments=arguments)
        channel.basic_publish("", "q", b"poison", pika.BasicProperties(delivery_mode=2))
    for _ in range(3):
        with foreign.channel(vhost) as dying:
            await poll(lambda: got(dying, "q"), what="the poison")
    assert (await asyncio.to_thread(foreign.get, vhost, "q.dead"))[2] == b"poison"


def got(channel: Any, queue: str) -> Any:
    found = channel.basic_get(queue)
    return found if found[0] else None


# ---------------------------------------------------------------------------------------------------- roles
PASSWORD = "made-up"
ACCESS_REFUSED = 403


def hashed(password: str) -> str:
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


class Roles:
    """One user for each role, in a virtual host with the topology."""

    def __init__(self, server: RabbitServer, vhost: str) -> None:
        at = urlsplit(vhost)
        self.name = unquote(at.path[1:])
        suffix = uuid4().hex[:6]
        definitions = declare.users(settings_for(vhost))
        text = (
            json.dumps(definitions)
            .replace('"jobnet-', f'"{suffix}-')
            .replace(declare.PASSWORD_HASH, hashed(PASSWORD))
        )
        server.api("POST", "/definitions", json.loads(text))
        self.urls = {
            role.name: f"amqp://{suffix}-{role.name}:{PASSWORD}@{at.hostname}:{at.port}{at.path}"
            for role in topology.ROLES
        }
        self.users = [f"{suffix}-{role.name}" for role in topology.ROLES]


@pytest.fixture
async def roles(rabbit: RabbitServer, vhost: str) -> Any:
    await declare.apply(settings_for(vhost))
    made = await asyncio.to_thread(Roles, rabbit, vhost)
    yield made
    for user in made.users:
        await asyncio.to_thread(rabbit.api, "DELETE", f"/users/{user}")


def refused(url: str, action: Action) -> bool:
    """Whether RabbitMQ answers the action with ACCESS_REFUSED."""
    try:
        with foreign.channel(url) as channel:
            action(channel)
    except ChannelClosedByBroker as no:
        return no.reply_code == ACCESS_REFUSED
    return False


QUORUM = {"x-queue-type": "quorum"}
Action = Callable[[Any], object]


def on_queue(queue: str) -> dict[str, Action]:
    return {
        "read": lambda channel: channel.basic_get(queue),
        "purge": lambda channel: channel.queue_purge(queue),
        "delete": lambda channel: channel.queue_delete(queue, if_unused=True),
        "rebind": lambda channel: channel.queue_bind(queue, REQUESTS, "x"),
    }


def on_exchange(exchange: str) -> dict[str, Action]:
    return {
        "write": lambda channel: channel.basic_publish(exchange, "query.times", b""),
        "delete": lambda channel: channel.exchange_delete(exchange),
    }


def actions() -> Iterator[tuple[str, Action, set[str]]]:
    """Actions, with the roles that are allowed to do them."""
    for queue in (*WORK_QUEUES, *DEAD_QUEUES):
        reader = {"operations", "broker"} if queue in DEAD_QUEUES else {"broker"}
        for what, action in on_queue(queue).items():
            yield f"{what} {queue}", action, reader if what in ("read", "purge") else set()
    for exchange, writer in {
        REQUESTS: {"frontend"},
        OUTCOMES: {"broker"},
        UNROUTED: set(),
        "amq.topic": set(),
    }.items():
        for what, action in on_exchange(exchange).items():
            yield f"{what} {exchange}", action, writer if what == "write" else set()
    yield "write to any queue", lambda c: c.basic_publish("", BOOKINGS, b""), {"broker"}
    yield "declare a queue", lambda c: c.queue_declare("mine", durable=True, arguments=QUORUM), set()
    yield "declare an exchange", lambda c: c.exchange_declare("mine", "topic"), set()
    yield (
        "declare an answer queue",
        lambda c: c.queue_declare("jobnet.answers.x", exclusive=True),
        {"frontend"},
    )
    yield "declare a server-named queue", lambda c: c.queue_declare("", exclusive=True), {"frontend"}
    yield "listen to requests", lambda c: bound_to(c, REQUESTS), set()
    yield "listen to outcomes", lambda c: bound_to(c, OUTCOMES), set()


def bound_to(channel: Any, exchange: str) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchange, "#")


async def test_each_role_may_do_its_own_actions_and_no_other(roles: Roles) -> None:
    allowed: dict[str, set[str]] = {}
    for name, action, may in actions():
        results = {
            role: not await asyncio.to_thread(refused, url, action) for role, url in roles.urls.items()
        }
        allowed[name] = {role for role, done in results.items() if done}
        assert allowed[name] == may, f"{name}: allowed to {allowed[name]}, should be {may}"


async def test_the_broker_role_can_do_all_that_the_running_broker_does(roles: Roles, vhost: str) -> None:
    broker, frontend = settings_for(roles.urls["broker"]), settings_for(roles.urls["frontend"])
    seen = Seen()
    async with Rabbit(broker, name="test") as rabbit, open_rpc_client(frontend, "jobnet.answers.test") as box:
        for queue in WORK_QUEUES:
            rabbit.subscribe(queue, 10, seen)
        await poll(lambda: rabbit.alive == set(WORK_QUEUES), what="every consumer")
        # When a frontend sends a request and the broker publishes an answer, an outcome event and a dead letter
        asking = asyncio.create_task(box.ask(Outgoing(REQUESTS, "booking.book", b"?", "booking.book.v1"), 20))
        (arrival,) = await poll(lambda: seen, what="the arrival")
        answer = Outgoing("", arrival.reply_to or "", b"!", correlation_id=arrival.correlation_id)
        for out in (
            answer,
            Outgoing(OUTCOMES, "booking.done", b"", mandatory=False),
            Outgoing("", dead_queue_of(BOOKINGS), b"letter"),
            Outgoing("", topology.SUSPECTS, b"suspect"),
        ):
            assert await rabbit.publish(out) is Published.CONFIRMED
        assert await asking == b"!"
        assert await arrival.ack()
    # Then operations can read the dead letter
    assert (await asyncio.to_thread(foreign.get, roles.urls["operations"], dead_queue_of(BOOKINGS)))[
        2
    ] == b"letter"


async def test_direct_reply_to_works_between_the_roles(roles: Roles) -> None:
    seen = Seen()
    async with Rabbit(settings_for(roles.urls["broker"]), name="test") as rabbit:
        rabbit.subscribe(QUERIES, 10, seen)
        answers: list[bytes] = []
        frontend = await asyncio.to_thread(ask_directly, roles.urls["frontend"], answers)
        (arrival,) = await poll(lambda: seen, what="the arrival")
        assert await rabbit.publish(Outgoing("", arrival.reply_to or "", b"!")) is Published.CONFIRMED
        await asyncio.to_thread(frontend.process_data_events, 5)
        assert answers == [b"!"]
        await asyncio.to_thread(frontend.close)


def ask_directly(url: str, answers: list[bytes]) -> Any:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_consume(
        "amq.rabbitmq.reply-to", lambda _c, _m, _p, body: answers.append(body), auto_ack=True
    )
    properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")
    channel.basic_publish(REQUESTS, "query.offers", b"?", properties)
    return connection


async def test_the_definitions_are_refused_until_the_password_hashes_are_filled_in(
    rabbit: RabbitServer, vhost: str
) -> None:
    # An import with an empty hash removes the passwords of existing users (seen on 3.10.8).
    definitions = declare.users(settings_for(vhost))
    with pytest.raises(RuntimeError, match="not_base64"):
        await asyncio.to_thread(rabbit.api, "POST", "/definitions", definitions)
    with pytest.raises(LookupError):
        await asyncio.to_thread(rabbit.api, "GET", "/users/jobnet-broker")


@pytest.mark.timeout(180)
async def test_rabbitmqctl_imports_the_filled_definitions(
    rabbit: RabbitServer, vhost: str, tmp_path: Path
) -> None:
    if not isinstance(rabbit, RabbitNode):
        rabbit = RabbitNode(tmp_path / "rabbit")
        rabbit.start()
        vhost = rabbit.create_vhost("test")
    text = json.dumps(declare.users(settings_for(vhost))).replace(declare.PASSWORD_HASH, hashed(PASSWORD))
    file = tmp_path / "definitions.json"
    file.write_text(text)
    await asyncio.to_thread(rabbit.ctl, "import_definitions", str(file))
    url = vhost.replace("guest:guest", f"jobnet-broker:{PASSWORD}")
    assert await asyncio.to_thread(refused, url, lambda c: c.basic_publish(REQUESTS, "query.times", b""))
    for role in topology.ROLES:
        await asyncio.to_thread(rabbit.api, "DELETE", f"/users/{role.user}")


@pytest.mark.parametrize(
    ("url", "vhost"),
    [
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://h/%2F", "/"),
        ("amqp://h/jobnet", "jobnet"),
        ("amqp://h/a%2Fb", "a/b"),
    ],
)
def test_the_virtual_host_is_read_from_the_address(url: str, vhost: str) -> None:
    assert declare.vhost_of(url) == vhost
