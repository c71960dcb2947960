"""The fault matrix as data: every kind of fault, and which of them a seed brings, when, how long and how hard.

Pure: the same seed and number of requests give the same plan. How a fault is done is in faults.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

EVERYTHING, NO_ANSWER, ONE_SYSTEM = "every answer", "no answer", "answers from that booking system"
RECOVERY_S = 15.0
"""After its end a fault still counts as on the path so long: owners must be seen dead, connections be made again."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault. `seconds` from and to; `amount` from and to, in the unit that `says` names."""

    name: str
    says: str
    on_path: str
    seconds: tuple[float, float] = (1.0, 5.0)
    amount: tuple[float, float] = (0.0, 0.0)
    ones: int = 1


def _link(of: str, on_path: str, ones: int, slow: tuple[float, float]) -> tuple[Kind, ...]:
    return (
        Kind(f"{of}-reset", f"every TCP link to {of} cut, again and again", on_path, ones=ones),
        Kind(f"{of}-slow", f"each piece of the link to {of} late by so many s", on_path, (2, 6), slow, ones),
        Kind(
            f"{of}-half-open", f"the link to {of} stays open and carries nothing", on_path, (2, 8), ones=ones
        ),
    )


def _outside(of: str, on_path: str) -> tuple[Kind, ...]:
    """The links to a system that is not ours: two of each, and one of the two is ill."""
    cut = Kind(
        f"{of}-cut-after-bytes",
        "each answer cut after so many bytes",
        on_path,
        (2, 6),
        (0, 400),
        ones=2,
    )
    return (*_link(of, on_path, 2, (0.1, 1.5)), cut)


CLUSTER_KILL = "cluster-node-kill"
CLOCK_JUMPS_S = (-100.0, -40.0, -6.0, 6.0, 40.0, 3600.0)

KINDS = (
    Kind(
        "worker-kill",
        "kill -9 of a worker; another one started so many s later",
        EVERYTHING,
        (0.1, 4),
        ones=2,
    ),
    Kind("worker-stop", "SIGSTOP of a worker, then SIGCONT", EVERYTHING, (0.5, 7), ones=2),
    Kind("rabbitmq-kill", "kill -9 of RabbitMQ, then a start", EVERYTHING, (0, 3)),
    *_link("rabbitmq", EVERYTHING, 1, (0.005, 0.05)),
    Kind("rabbitmq-memory-alarm", "RabbitMQ's memory alarm: it takes nothing in", EVERYTHING, (1, 7)),
    Kind("postgresql-kill", "kill -9 of PostgreSQL, then a start", EVERYTHING, (0, 4)),
    *_link("postgresql", EVERYTHING, 1, (0.002, 0.02)),
    Kind("postgresql-disk-full", "no space left for the ledger", EVERYTHING, (1, 6)),
    *_outside("booking-system", ONE_SYSTEM),
    *_outside("supplier", NO_ANSWER),
    Kind("clock-jump", "one worker's wall clock off by so many s, then right again", EVERYTHING, (1, 6)),
    Kind(CLUSTER_KILL, "kill -9 of one of three RabbitMQ nodes, then a start", EVERYTHING, (1, 4), ones=3),
)
BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Fault:
    """One fault of a plan: it begins when request number `at_request` is sent. `which`: of several, from 1."""

    name: str
    at_request: int
    seconds: float
    amount: float = 0.0
    which: int = 1

    def __str__(self) -> str:
        amount = f", {self.amount:g}" if self.amount else ""
        one = f" {self.which}" if BY_NAME[self.name].ones > 1 else ""
        return f"{self.name}{one} at request {self.at_request} for {self.seconds:g} s{amount}"

    def hits_answer_of(self, system: int | None) -> bool:
        """Whether it is on the path of the answer to a request that needs booking system `system` (None: none)."""
        path = BY_NAME[self.name].on_path
        return path == EVERYTHING or (path == ONE_SYSTEM and self.which == system)


@dataclass(frozen=True)
class Plan:
    """What one seed does: one fault alone, then two together."""

    seed: int
    requests: int
    faults: tuple[Fault, ...]

    @property
    def on_a_cluster(self) -> bool:
        """Whether RabbitMQ is three nodes."""
        return any(fault.name == CLUSTER_KILL for fault in self.faults)

    @property
    def with_false_clock(self) -> bool:
        """Whether a worker's clock must be ours to move."""
        return any(fault.name == "clock-jump" for fault in self.faults)

    def lines(self) -> list[str]:
        """For a person."""
        return [f"seed {self.seed}, {self.requests} requests: {'; '.join(map(str, self.faults))}"]


def plan_of(seed: int, requests: int, names: Iterable[str] | None = None) -> Plan:
    """The plan of a seed. As many seeds in a row as there are kinds bring each kind alone once.

    `names` instead chooses the faults: one after the other over the run.
    """
    chance = random.Random(seed)  # noqa: S311  a seed, so that the same faults come again
    if names is not None:
        chosen = list(names)
        places = [0.15 + 0.6 * n / len(chosen) for n in range(len(chosen))]
        return Plan(seed, requests, _faults(chance, zip(chosen, places, strict=True), requests))
    alone = KINDS[(seed - 1) % len(KINDS)].name
    first, second = chance.sample(_partners(alone), 2)
    at = chance.uniform(0.5, 0.7)
    when = ((alone, chance.uniform(0.08, 0.25)), (first, at), (second, at + chance.uniform(0, 0.08)))
    return Plan(seed, requests, _faults(chance, when, requests))


def _partners(alone: str) -> list[str]:
    """What may come as a pair: a cluster's nodes die only on a cluster, and there is no single node to kill there."""
    if alone == CLUSTER_KILL:
        return [k.name for k in KINDS if k.name not in ("rabbitmq-kill", "rabbitmq-memory-alarm")]
    return [k.name for k in KINDS if k.name != CLUSTER_KILL]


def _faults(chance: random.Random, when: Iterable[tuple[str, float]], requests: int) -> tuple[Fault, ...]:
    return tuple(_fault(chance, BY_NAME[name], int(place * requests)) for name, place in when)


def _fault(chance: random.Random, kind: Kind, at_request: int) -> Fault:
    amount = chance.choice(CLOCK_JUMPS_S) if kind.name == "clock-jump" else chance.uniform(*kind.amount)
    return Fault(
        kind.name,
        at_request,
        round(chance.uniform(*kind.seconds), 2),
        round(amount, 3),
        chance.randint(1, kind.ones),
    )
