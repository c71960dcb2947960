"""Exchanges, queues, bindings and users of RabbitMQ, as data (DESIGN 2 and 8).

Names are made by rule in one place. Nothing here talks to a server; topology_ops.py does.
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
"""What permissions call the exchange without a name."""

WORK_DELIVERY_LIMIT = 1000
"""Deliveries until what no process could even read becomes a dead letter. Every restart counts one for every
innocent message, so restarts must never reach it (rabbitmq.md 1, #2); RabbitMQ 4 would take 20."""
UNLIMITED_SINCE = (4, 0)
"""From here on a quorum queue has a delivery limit by default, and -1 takes it away; before, none is none."""


def dead_queue_of(queue: str) -> str:
    """Where what dies in `queue` rests; suspects die among those they were taken from."""
    return f"{queue.removesuffix('.suspect')}.dead"


def lane_of(supplier: str) -> str:
    """A supplier's lane: reports for it, as ids."""
    return f"{LANES}{supplier}"


class QueueKind(Enum):
    """What a queue is for; its arguments follow."""

    WORK = "work"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange. What no binding of it takes goes to `alternate`."""

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
        """What it is declared with on a server of that version (major, minor)."""
        common = {
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
        }  # drop-head loses what was confirmed
        if self.kind is QueueKind.DEAD:
            unlimited = {"x-delivery-limit": -1} if version >= UNLIMITED_SINCE else {}
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
        """The three patterns as RabbitMQ wants them: anchored, since it searches."""
        return {
            "configure": pattern_of(self.configure),
            "write": pattern_of(self.write),
            "read": pattern_of(self.read),
        }


def pattern_of(names: Iterable[str]) -> str:
    """A regular expression for these names and nothing else."""
    parts = [re.escape(n).replace(r"\*", ".*").replace(r"\-", "-") for n in names]
    return f"^({'|'.join(parts)})$" if parts else "^$"


ROUTING_KEYS = {
    QUERIES: ("query.offers", "query.times"),
    BOOKINGS: ("booking.book", "booking.immediate", "booking.rebook", "booking.accept", "booking.cancel"),
    CITIZEN_REPORTS: ("report.citizen",),
}
"""Each message type, without its version, and the queue it belongs on."""

EXCHANGES = (
    Exchange(UNROUTED, "fanout"),
    Exchange(REQUESTS, "topic", alternate=UNROUTED),
    Exchange(OUTCOMES, "topic"),
)
WORK_QUEUES = (QUERIES, BOOKINGS, CITIZEN_REPORTS, SUSPECTS)
DEAD_QUEUES = tuple(sorted({dead_queue_of(q) for q in (*WORK_QUEUES, UNROUTED)}))
# The dead-letter queues come first: a work queue's dead letters need somewhere to go.
QUEUES = (*(Queue(q, QueueKind.DEAD) for q in DEAD_QUEUES), *(Queue(q, QueueKind.WORK) for q in WORK_QUEUES))
"""What every broker has; the lanes come on top, from the directory."""
BINDINGS = (
    Binding(UNROUTED, dead_queue_of(UNROUTED), ""),
    *(Binding(REQUESTS, queue, key) for queue, keys in ROUTING_KEYS.items() for key in keys),
)

OWN_ANSWERS = (f"{ANSWER_QUEUES}*", f"{SERVER_NAMED}*")
ROLES = (
    # No topic permissions: an unknown routing key must reach the unrouted letters, not break a channel.
    Role("frontend", configure=OWN_ANSWERS, write=(REQUESTS,), read=OWN_ANSWERS),
    # Answers, dead letters and suspects all go through the default exchange. It declares nothing.
    # It reads dead letters to keep their queues true to the ledger.
    Role("broker", write=(DEFAULT_EXCHANGE, OUTCOMES), read=(*WORK_QUEUES, *DEAD_QUEUES, f"{LANES}*")),
    # They look at the dead letters; replaying is the broker's work, so that nothing is sent twice.
    Role("operations", read=(*DEAD_QUEUES, f"{LANES}*.dead"), tags=("management",)),
)


def queues(suppliers: Iterable[str] = ()) -> tuple[Queue, ...]:
    """Every queue: the fixed ones, and for each supplier its lane with its dead letters, which come first."""
    lanes = [lane_of(supplier) for supplier in sorted(suppliers)]
    return (
        *QUEUES,
        *(Queue(dead_queue_of(lane), QueueKind.DEAD) for lane in lanes),
        *(Queue(lane, QueueKind.WORK) for lane in lanes),
    )


def dead_queues(suppliers: Iterable[str] = ()) -> tuple[str, ...]:
    """Every dead-letter queue by name."""
    return tuple(queue.name for queue in queues(suppliers) if queue.kind is QueueKind.DEAD)
