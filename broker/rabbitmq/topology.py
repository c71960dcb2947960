"""Exchanges, queues, bindings and users of RabbitMQ, as data (docs/rabbitmq.md#rules).

All names are computed here. declare.py declares them on a server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from config.sections import QueueSettings

REQUESTS = "jobnet.requests"
OUTCOMES = "jobnet.outcomes"
UNROUTED = "jobnet.unrouted"
QUERIES = "jobnet.queries"
BOOKINGS = "jobnet.bookings"
CITIZEN_REPORTS = "jobnet.citizen-reports"
SUSPECTS = f"{BOOKINGS}.suspect"
LANES = "jobnet.reports."
ANSWER_QUEUES = "jobnet.answers."
SERVER_NAMED = "amq.gen-"
DIRECT_REPLY = "amq.rabbitmq.reply-to."
DEFAULT_EXCHANGE = "amq.default"
"""The name of the default exchange in permissions."""

# A restart counts as a delivery of every message in flight, so restarts must not reach the limit (docs/rabbitmq.md#t2).
# RabbitMQ 4 has a limit of 20 by default.
WORK_DELIVERY_LIMIT = 1000
"""Deliveries after which a message that no process could even read becomes a dead letter."""
LIMITED_BY_DEFAULT_SINCE = (4, 0)
"""From this version on a quorum queue has a delivery limit by default, and -1 removes it."""


def dead_queue_of(queue: str) -> str:
    """The dead-letter queue of `queue`. The suspect queue shares the one of the queue that suspects come from."""
    return f"{queue.removesuffix('.suspect')}.dead"


def lane_of(supplier: str) -> str:
    """The queue of a supplier's lane. Its messages name reports by id."""
    return f"{LANES}{supplier}"


class QueueKind(Enum):
    """The purpose of a queue, which decides its arguments."""

    WORK = "work"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange. Messages that match no binding go to the exchange `alternate`."""

    name: str
    type: str
    alternate: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"alternate-exchange": self.alternate} if self.alternate else {}


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue."""

    name: str
    kind: QueueKind

    def arguments(self, limits: QueueSettings, version: tuple[int, int]) -> dict[str, Any]:
        """The arguments to declare it with on a server of this version (major, minor)."""
        # The default overflow, drop-head, loses confirmed messages (docs/rabbitmq.md#t8).
        common = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}
        if self.kind is QueueKind.DEAD:
            # Looking at a dead letter counts as a delivery (docs/rabbitmq.md#t11).
            unlimited = {"x-delivery-limit": -1} if version >= LIMITED_BY_DEFAULT_SINCE else {}
            return {**common, "x-max-length": limits.dead_max_length, **unlimited}
        return {
            **common,
            "x-max-length": limits.max_length,
            "x-delivery-limit": WORK_DELIVERY_LIMIT,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead_queue_of(self.name),
            "x-dead-letter-strategy": "at-least-once",
        }


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages with exactly this routing key go from the exchange to the queue."""

    exchange: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Role:
    """A RabbitMQ user and the names it may configure, write and read; a name that ends in `*` is a prefix."""

    name: str
    configure: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    tags: tuple[str, ...] = field(default=())

    @property
    def user(self) -> str:
        return f"jobnet-{self.name}"

    def permissions(self) -> dict[str, str]:
        """The three patterns for RabbitMQ, anchored because RabbitMQ searches with them."""
        return {
            "configure": pattern_of(self.configure),
            "write": pattern_of(self.write),
            "read": pattern_of(self.read),
        }


def pattern_of(names: Iterable[str]) -> str:
    """A regular expression that matches exactly these names."""
    parts = [re.escape(n).replace(r"\*", ".*").replace(r"\-", "-") for n in names]
    return f"^({'|'.join(parts)})$" if parts else "^$"


ROUTING_KEYS = {
    QUERIES: ("query.offers", "query.times"),
    BOOKINGS: ("booking.book", "booking.immediate", "booking.rebook", "booking.accept", "booking.cancel"),
    CITIZEN_REPORTS: ("report.citizen",),
}
"""The message types of each queue, without their version."""

EXCHANGES = (
    Exchange(UNROUTED, "fanout"),
    Exchange(REQUESTS, "topic", alternate=UNROUTED),
    Exchange(OUTCOMES, "topic"),
)
WORK_QUEUES = (QUERIES, BOOKINGS, CITIZEN_REPORTS, SUSPECTS)
DEAD_QUEUES = tuple(sorted({dead_queue_of(q) for q in (*WORK_QUEUES, UNROUTED)}))
# The dead-letter queues come first, because the work queues dead-letter to them.
QUEUES = (*(Queue(q, QueueKind.DEAD) for q in DEAD_QUEUES), *(Queue(q, QueueKind.WORK) for q in WORK_QUEUES))
"""The queues of every broker. `queues` adds the lanes of the directory."""
BINDINGS = (
    Binding(UNROUTED, dead_queue_of(UNROUTED), ""),
    *(Binding(REQUESTS, queue, key) for queue, keys in ROUTING_KEYS.items() for key in keys),
)

OWN_ANSWERS = (f"{ANSWER_QUEUES}*", f"{SERVER_NAMED}*")
ROLES = (
    # No topic permissions: an unknown routing key must reach jobnet.unrouted instead of closing a channel.
    Role("frontend", configure=OWN_ANSWERS, write=(REQUESTS,), read=OWN_ANSWERS),
    # It declares nothing. Answers, dead letters and suspects go through the default exchange. It reads dead letters to
    # reconcile their queues with the ledger.
    Role("broker", write=(DEFAULT_EXCHANGE, OUTCOMES), read=(*WORK_QUEUES, *DEAD_QUEUES, f"{LANES}*")),
    # Operations read the dead letters; the broker replays them, so that no message is sent twice.
    Role("operations", read=(*DEAD_QUEUES, f"{LANES}*.dead"), tags=("management",)),
)


def queues(suppliers: Iterable[str] = ()) -> tuple[Queue, ...]:
    """All queues: the fixed ones, then the dead-letter queues of all lanes, then the lanes."""
    lanes = [lane_of(supplier) for supplier in sorted(suppliers)]
    return (
        *QUEUES,
        *(Queue(dead_queue_of(lane), QueueKind.DEAD) for lane in lanes),
        *(Queue(lane, QueueKind.WORK) for lane in lanes),
    )


def dead_queues(suppliers: Iterable[str] = ()) -> tuple[str, ...]:
    """The names of all dead-letter queues."""
    return tuple(queue.name for queue in queues(suppliers) if queue.kind is QueueKind.DEAD)
