"""Health state of this process, read by /healthz, /readyz and /metrics.

Components register at start; periodic checks store their last result. A component that does not exist yet is None.
Reading does no I/O, except `probe_alarms`: a probe of RabbitMQ's alarms, for at most 100 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from time import monotonic, time

from broker.dead_letters.reconcile import ReconcileResult
from broker.ledger.ledger import Ledger
from broker.ledger.model import ConsumerStatus
from broker.ledger.operators.figures import Figures
from broker.ledger.upkeep.conservation import Balance
from broker.rabbitmq import Rabbit
from broker.rabbitmq.consumer import Consumer
from broker.telemetry.counters import COUNTERS, Counters

ALARM_S = 0.1
"""Time limit of the probe of RabbitMQ's alarms."""


@dataclass(slots=True)
class Vitals:
    """The health state of this process: its counters, its components, and the last result of each periodic check."""

    counters: Counters = field(default_factory=lambda: COUNTERS)
    rabbit: Rabbit | None = None
    consumer: Consumer | None = None
    ledger: Ledger | None = None
    stopping: bool = False
    blocked: bool = False
    figures: Figures | None = None
    figures_at: float = 0.0
    depths: Mapping[str, int] = field(default_factory=dict)
    balance: Balance | None = None
    balance_at: float = 0.0
    pass_done_at: float | None = None
    pass_refused: int = 0
    certificates: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    key_expiry: Mapping[str, date] = field(default_factory=dict)

    # -- results of periodic checks -----------------------------------------------------------------------------------

    def record_figures(self, figures: Figures, depths: Mapping[str, int]) -> None:
        """Store the figures of the ledger and the depths of the work queues."""
        self.figures, self.depths, self.figures_at = figures, depths, monotonic()

    def record_balance(self, balance: Balance) -> None:
        """Store the result of a comparison of accepted requests and reports with their outcomes."""
        self.balance, self.balance_at = balance, monotonic()

    def record_reconciliation(self, result: ReconcileResult | None) -> None:
        """Store the result of reconciling the dead-letter queues; None: another process does it at the moment."""
        if result is not None:
            self.pass_done_at, self.pass_refused = time(), result.refused

    # -- readiness ---------------------------------------------------------------------------------------------

    async def probe_alarms(self) -> None:
        """Ask the connection whether RabbitMQ accepts publishes, and set `blocked`."""
        self.blocked = self.rabbit is not None and not await self.rabbit.takes_publishes(ALARM_S)

    def consumer_status(self) -> ConsumerStatus | None:
        """The state of this process's consumers, for its heartbeat in the ledger; None during start."""
        if self.rabbit is None:
            return None
        return ConsumerStatus(
            len(self.rabbit.expected), len(self.rabbit.alive), "; ".join(self.why_not_ready()) or None
        )

    def why_not_ready(self) -> list[str]:
        """The reasons why this process handles no requests now, as sentences; empty if it is ready."""
        if self.stopping:
            return ["stopping: running work is being finished"]
        if self.consumer is None or self.ledger is None:
            return ["starting"]
        problem = self.ledger.availability.problem
        found = [problem] if problem is not None else []
        if (problem := self.consumer.problem()) is not None:
            found.append(problem)
        elif self.blocked:
            found.append("RabbitMQ accepts no publishes: an alarm (memory or disk) blocks them")
        return found
