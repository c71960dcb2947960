"""How this process is, as one object that the health server and the metrics look at.

The parts write themselves in as they come up, chores write down what they found; nobody is asked anything here but
RabbitMQ's connection, with a bound. What is not there yet is None, and then there is nothing to tell of it.
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
"""How long a look at RabbitMQ's alarms may take: the connection knows, unless it is away."""


@dataclass(slots=True)
class Vitals:
    """Everything that is known of this process. `tally` counts; the rest is what was seen last."""

    tally: Counters = field(default_factory=lambda: COUNTERS)
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

    # -- what chores found -----------------------------------------------------------------------------------

    def saw_figures(self, figures: Figures, depths: Mapping[str, int]) -> None:
        self.figures, self.depths, self.figures_at = figures, depths, monotonic()

    def saw_balance(self, balance: Balance) -> None:
        self.balance, self.balance_at = balance, monotonic()

    def saw_pass(self, report: ReconcileResult | None) -> None:
        """A pass over the dead letters; None: another process is at it, and tells of it."""
        if report is not None:
            self.pass_done_at, self.pass_refused = time(), report.refused

    # -- how it is ---------------------------------------------------------------------------------------------

    async def look_at_alarms(self) -> None:
        """Ask the connection whether RabbitMQ takes publishes; `blocked` is the answer."""
        self.blocked = self.rabbit is not None and not await self.rabbit.takes_publishes(ALARM_S)

    def sight(self) -> ConsumerStatus | None:
        """The same for the table of workers; None while the parts are not there yet."""
        if self.rabbit is None:
            return None
        return ConsumerStatus(
            len(self.rabbit.expected), len(self.rabbit.alive), "; ".join(self.why_not_ready()) or None
        )

    def why_not_ready(self) -> list[str]:
        """Sentences, each a reason why requests are not carried here now; none: they are."""
        if self.stopping:
            return ["stopping: what is under way is being finished"]
        if self.consumer is None or self.ledger is None:
            return ["starting"]
        found = ["PostgreSQL is out of reach"] if self.ledger.availability.away else []
        if (problem := self.consumer.problem()) is not None:
            found.append(problem)
        elif self.blocked:
            found.append("RabbitMQ takes no publishes: an alarm (memory or disk) blocks them")
        return found
