"""From a judged try to one of our errors. The table of DESIGN 5 is in `classify.py`; this only names its rows."""

from __future__ import annotations

from broker.clients.calls import M
from broker.clients.classify import Judgement, Verdict
from broker.errors import BrokerError, ContractBroken, Misconfigured, Refused, Rejected, Seen, Unavailable
from schemas.codes import FAULT_REASONS

_FAILURES: dict[Verdict, type[Misconfigured | ContractBroken | Rejected]] = {
    Verdict.MISCONFIGURED: Misconfigured,
    Verdict.BROKEN: ContractBroken,
    Verdict.REJECTED: Rejected,
}


def error_of(judgement: Judgement[M], seen: Seen) -> BrokerError | None:
    """What is to be raised for this try, or None: it was answered as the contract says."""
    if judgement.verdict is Verdict.UNAVAILABLE:
        return Unavailable(seen, judgement.retry_after)
    if judgement.verdict is Verdict.REFUSED and judgement.fault is not None:
        return Refused(FAULT_REASONS[judgement.fault], seen=seen)
    failure = _FAILURES.get(judgement.verdict)
    return failure(seen) if failure else None
