"""The errors of this broker, on one page. Each class says whose fault it is, and so what follows.

    BrokerError
    ├── Refused           a business "no" of our rules or of the contract: it is an answer
    ├── NothingOffered    no offers, no times: fejlkode 3, 2 or (straksbooking) 4
    ├── Failure           a failure on the way to or in an external system: fejlkode 4
    │   ├── Unavailable   the moment: the same call may work later
    │   ├── Misconfigured the set-up: address, credentials, certificate; a person must act
    │   ├── ContractBroken the answer is not one of the contract
    │   ├── Rejected      a 4xx without a fault of the contract
    │   ├── AtCapacity    our cap, waiting list or circuit breaker stopped the call; nothing was sent
    │   └── NotSent       we held back a create, accept or cancel; nothing was sent
    ├── Unknown           a create, accept or cancel was sent and its outcome is unknown
    ├── LedgerAway        PostgreSQL cannot be reached
    └── RabbitAway        RabbitMQ cannot be reached, or the outcome of a publish is unknown

Clients raise these, `settle.py` decides what follows, the pipeline acts. No error text holds a value from outside:
only systems, steps, statuses and the contract's own fault names.

Errors with a home of their own, beside the code that raises them:
`schemas.wire.InvalidMessage` (a message with its invalid fields), `config.sources.ConfigProblem`,
`broker.sealing.SealBroken` and `KeyMissing`, `broker.ledger.model.RowRefused` and `LedgerMisfit`,
`broker.rabbitmq.connection.DeclareRefused`, `broker.clients.bulkhead.CallRejected`,
`broker.ledger.operators` and `broker.console` (refusals to operators).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.codes import ErrorCode, Fault, Reason
from schemas.envelope import FieldProblem


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Facts of one call to an external system, for logs and for the supplier's report.

    `what` is one of our own words ("timeout", "status 502", "html", "breaker-open"), never text from outside.
    `sent`: it may have been received. `unanswered`: it was sent and no whole answer came. Only the delivery of a
    report sets these two; the tries of a booking are counted in clients/tries.py.
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


class Refused(BrokerError):
    """A business "no", from our rules or from a fault of the contract."""

    def __init__(self, reason: Reason, *fields: FieldProblem, call_facts: CallFacts | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.fields = fields
        self.call_facts = call_facts


class NothingOffered(BrokerError):
    """The systems answered, and there is nothing to choose from (R10)."""

    def __init__(self, error_code: ErrorCode, call_facts: CallFacts | None = None) -> None:
        super().__init__(f"nothing offered (fejlkode {int(error_code)})")
        self.error_code = error_code
        self.call_facts = call_facts


class Failure(BrokerError):
    """A failure on the way to or in an external system."""

    def __init__(self, call_facts: CallFacts) -> None:
        super().__init__(str(call_facts))
        self.call_facts = call_facts


class Unavailable(Failure):
    """The same call may work later. `retry_after`: seconds from the Retry-After header, if there was one."""

    def __init__(self, call_facts: CallFacts, retry_after: float | None = None) -> None:
        super().__init__(call_facts)
        self.retry_after = retry_after


class Misconfigured(Failure):
    """The set-up is wrong: address, credentials or certificate. A person must act."""


class ContractBroken(Failure):
    """The answer is not one of the contract."""


class Rejected(Failure):
    """A 4xx without a fault of the contract."""


class AtCapacity(Failure):
    """Our cap, waiting list or circuit breaker stopped the call. Nothing was sent; it is not the supplier's fault."""


class NotSent(Failure):
    """We held back a create, accept or cancel: too little time, or our heartbeat is too old. Nothing was sent."""


class Unknown(BrokerError):
    """A create, accept or cancel was sent and its outcome is unknown: only verification settles it.

    `last_sent_at` is the wall time of the last try; absence proves nothing until some time after it.
    """

    def __init__(self, call_facts: CallFacts, last_sent_at: datetime) -> None:
        super().__init__(str(call_facts))
        self.call_facts = call_facts
        self.last_sent_at = last_sent_at


class LedgerAway(BrokerError):
    """PostgreSQL cannot be reached."""


class RabbitAway(BrokerError):
    """RabbitMQ cannot be reached, or the outcome of a publish is unknown."""
