"""The bad news of this broker, on one page.

    BrokerError
    ├── BadMessage        the message is wrong
    ├── Refused           a business "no" that the contract knows: an answer, not bad news
    ├── NothingOffered    no offers, no times: failure 3, 2 or (straksbooking) 4
    ├── Failure           it went wrong on the way to or in an external system: failure 4
    │   ├── Unavailable   the moment is wrong; the same call may work later
    │   ├── Misconfigured the setup is wrong: address, credentials, certificate; a person must act
    │   ├── ContractBroken the other side answered something that the contract does not know
    │   ├── Rejected      a 4xx that names no fault of the contract
    │   ├── AtCapacity    our own cap, waiting list or breaker said no; nothing was sent
    │   └── NotSent       a create, accept or cancel was held back by us; nothing was sent
    ├── Unknown           a create, accept or cancel was sent and its fate is not known
    ├── LedgerAway        PostgreSQL cannot be reached
    └── RabbitAway        RabbitMQ cannot be reached, or a publish has an unknown fate

Clients report what happened by raising one of these; `settle.py` judges; the pipeline acts. No text here ever
holds a value that came from outside: systems, steps, statuses and the contract's own fault names only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.codes import ErrorCode, Fault, Reason
from schemas.envelope import FieldProblem


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What a call to an external system met; kept for logs and for the supplier's report.

    `what` is a word of ours ("timeout", "status 502", "html", "breaker-open"), never text from outside.
    `sent`: it may have been received; `unanswered`: sent, and no whole answer came. Only deliveries of
    reports tell these two: a booking's tries keep them to themselves (clients/tries.py).
    """

    system: str
    step: str
    what: str
    status: int | None = None
    fault: Fault | None = None
    milliseconds: int = 0
    sent: bool = True
    unanswered: bool = False

    def __str__(self) -> str:
        fault = f" ({self.fault.value.rsplit(':', 1)[-1]})" if self.fault else ""
        return f"{self.step} at {self.system}: {self.what}{fault} after {self.milliseconds} ms"


class BrokerError(Exception):
    """Everything this broker raises on purpose."""

    @property
    def cause(self) -> str:
        """The class as one word for logs: `Unavailable` is `unavailable`, `AtCapacity` is `at-capacity`."""
        return "".join(f"-{c.lower()}" if c.isupper() else c for c in type(self).__name__).lstrip("-")


class BadMessage(BrokerError):
    """The message cannot be carried out as it is written; `problems` name the fields."""

    def __init__(self, *problems: FieldProblem) -> None:
        super().__init__(
            "; ".join(f"{p.field}: {p.problem}" for p in problems) or "the message cannot be read"
        )
        self.problems = problems


class Refused(BrokerError):
    """A business "no", from our rules or from a fault of the contract."""

    def __init__(self, reason: Reason, *fields: FieldProblem, call_facts: CallFacts | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.fields = fields
        self.call_facts = call_facts


class NothingOffered(BrokerError):
    """The systems answered well, and there is nothing to choose from (DESIGN 3, rule 10)."""

    def __init__(self, error_code: ErrorCode, call_facts: CallFacts | None = None) -> None:
        super().__init__(f"nothing offered (fejlkode {int(error_code)})")
        self.error_code = error_code
        self.call_facts = call_facts


class Failure(BrokerError):
    """Something went wrong on the way to or in an external system."""

    def __init__(self, call_facts: CallFacts) -> None:
        super().__init__(str(call_facts))
        self.call_facts = call_facts


class Unavailable(Failure):
    """The moment is wrong. `retry_after` is the other side's own wish in seconds, if it named one."""

    def __init__(self, call_facts: CallFacts, retry_after: float | None = None) -> None:
        super().__init__(call_facts)
        self.retry_after = retry_after


class Misconfigured(Failure):
    """The setup is wrong: address, credentials or certificate. A person must act."""


class ContractBroken(Failure):
    """The other side answered something that the contract does not know."""


class Rejected(Failure):
    """A 4xx that names no fault of the contract."""


class AtCapacity(Failure):
    """Our own cap, waiting list or breaker said no. Nothing was sent, and the supplier is not to blame."""


class NotSent(Failure):
    """A create, accept or cancel was held back: too little time, or our heartbeat is too old. Nothing was sent."""


class Unknown(BrokerError):
    """A create, accept or cancel was sent and its fate is not known: only verification settles it.

    `last_sent_at` is the wall time of the last try; absence proves nothing until some time after it.
    """

    def __init__(self, call_facts: CallFacts, last_sent_at: datetime) -> None:
        super().__init__(str(call_facts))
        self.call_facts = call_facts
        self.last_sent_at = last_sent_at


class LedgerAway(BrokerError):
    """PostgreSQL cannot be reached."""


class RabbitAway(BrokerError):
    """RabbitMQ cannot be reached, or what became of a publish is not known."""
