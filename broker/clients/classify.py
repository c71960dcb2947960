"""From what a call met to what it means: the table of DESIGN 5 as data.

Pure: no I/O, no clock. Of what the outside said only status, known fault and Retry-After get through; a
problem document's `title` and `detail` are never looked at.
"""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic

from pydantic import ValidationError

from broker.clients.breaker import CallHealth
from broker.clients.calls import Call, CallKind, M
from broker.errors import (
    BrokerError,
    CallFacts,
    ContractBroken,
    Misconfigured,
    Refused,
    Rejected,
    Unavailable,
)
from schemas.codes import FAULT_REASONS, Fault


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer came. `status` None: it was not HTTP. `flaw`: why the body was not kept."""

    status: int | None
    content_type: str = ""
    body: bytes = field(default=b"", repr=False)
    flaw: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No whole answer came. `connected`: the request may have been received; `setup`: a person must act."""

    what: str
    connected: bool
    setup: bool = False


CallResult = HttpAnswer | NoAnswer


class CallClass(Enum):
    """The rows of DESIGN 5 that a single try can end in."""

    DONE = "as the contract says"
    ABSENT = "the contract's own word for absence"
    RECEIVED = "412 after an unanswered try"
    REFUSED = "a fault of the contract's list"
    UNAVAILABLE = "the moment is wrong"
    MISCONFIGURED = "the setup is wrong"
    BROKEN = "not the contract"
    REJECTED = "another 4xx"


# Rows apply from the top; a status that no row has (600 and more) is not the contract.
STATUS_ROWS: tuple[tuple[Container[int], CallClass], ...] = (
    (frozenset({408, 429, *range(500, 600)}), CallClass.UNAVAILABLE),
    (frozenset({401, 403, 404, 405, 407}), CallClass.MISCONFIGURED),
    (range(400, 500), CallClass.REJECTED),
)
# The words of `NoAnswer` for a try whose time ran out.
TIMEOUTS = frozenset({"timeout", "connect-timeout"})
# nginx lets the handshake pass and refuses our certificate (or that there is none) with a page of its own.
CERTIFICATE_PAGES = (b"No required SSL certificate was sent", b"The SSL certificate error")
# On a create, accept or cancel these two say "not done" (DESIGN 5, below the table).
NOT_DONE = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Classified(Generic[M]):
    """One try, judged. `sent`: it may have been received; `unanswered`: sent, and no whole answer came."""

    verdict: CallClass
    what: str
    sent: bool = True
    unanswered: bool = False
    status: int | None = None
    fault: Fault | None = None
    retry_after: float | None = None
    body: M | None = None

    def leaves_unknown(self, kind: CallKind) -> bool:
        """A create, accept or cancel that was sent and not answered as the contract says (DESIGN 5).

        `allerede-modtaget` counts as such: it says that something of ours arrived, and not what became of it.
        """
        if kind is not CallKind.COMMIT or not self.sent or self.verdict is CallClass.DONE:
            return False
        if self.verdict is CallClass.REFUSED:
            return self.fault is Fault.ALREADY_RECEIVED
        return self.status not in NOT_DONE

    def for_breaker(self) -> CallHealth:
        """What the breaker learns:

        a Retry-After is an orderly answer, and our own setup is not their failure.
        """
        if self.verdict is CallClass.UNAVAILABLE:
            orderly = self.status in NOT_DONE and self.retry_after is not None
            return CallHealth.NEITHER if orderly else CallHealth.FAILED
        if self.verdict is CallClass.BROKEN:
            return CallHealth.FAILED
        return CallHealth.ANSWERED if self.sent else CallHealth.NEITHER


def classify(call: Call[M], met: CallResult, *, after_unanswered: bool = False) -> Classified[M]:
    """Judges one try; `after_unanswered`: this x-requestId was sent before, and nobody answered."""
    if isinstance(met, NoAnswer):
        verdict = CallClass.MISCONFIGURED if met.setup else CallClass.UNAVAILABLE
        return Classified(verdict, met.what, sent=met.connected, unanswered=met.connected)
    if met.status is None:
        return Classified(CallClass.BROKEN, met.flaw or "not-http")
    if met.status == call.expect or met.status in call.also_good:
        return _as_expected(call, met, met.status)
    if met.status == 412 and after_unanswered and call.kind is not CallKind.READ:
        return Classified(CallClass.RECEIVED, "status 412", status=412)
    fault = fault_of(met, met.status)
    if fault is not None:
        absent = met.status == 404 and fault is call.absent_fault
        verdict = CallClass.ABSENT if absent else CallClass.REFUSED
        return Classified(verdict, f"status {met.status}", status=met.status, fault=fault)
    return _by_status(met, met.status)


def fault_of(met: HttpAnswer, status: int) -> Fault | None:
    """The contract's fault that a 4xx names in its JSON body, or None."""
    if not 400 <= status < 500 or not met.content_type.endswith("json"):
        return None
    try:
        document = json.loads(met.body)
        return Fault(document["type"]) if isinstance(document, dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def is_html(met: HttpAnswer) -> bool:
    """A web page: a login form, an error page of a proxy."""
    if met.content_type in ("text/html", "application/xhtml+xml"):
        return True
    return met.body[:64].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _as_expected(call: Call[M], met: HttpAnswer, status: int) -> Classified[M]:
    flaw = met.flaw or ("html" if is_html(met) else None)
    if flaw is None and call.model is None:
        flaw = "body" if met.body and not call.any_body else None
    if flaw is None and call.model is not None:
        body = _read(call, call.model, met.body)
        if body is not None:
            return Classified(CallClass.DONE, f"status {status}", status=status, body=body)
        flaw = "body"
    if flaw is not None:
        return Classified(CallClass.BROKEN, flaw, status=status)
    return Classified(CallClass.DONE, f"status {status}", status=status)


def _read(call: Call[M], model: type[M], body: bytes) -> M | None:
    try:
        read = model.model_validate_json(body)
    except ValidationError:
        return None
    return read if call.agrees is None or call.agrees(read) else None


def _by_status(met: HttpAnswer, status: int) -> Classified[M]:
    verdict = next((row for statuses, row in STATUS_ROWS if status in statuses), CallClass.BROKEN)
    what = f"status {status}"
    if 300 <= status < 400:
        what = "redirect"
    elif status == 400 and is_html(met) and any(page in met.body for page in CERTIFICATE_PAGES):
        verdict, what = CallClass.MISCONFIGURED, "certificate"
    elif verdict in (CallClass.REJECTED, CallClass.BROKEN) and (flaw := _flaw(met)):
        verdict, what = CallClass.BROKEN, flaw
    retry_after = met.retry_after if verdict is CallClass.UNAVAILABLE else None
    return Classified(verdict, what, status=status, retry_after=retry_after)


def _flaw(met: HttpAnswer) -> str | None:
    return met.flaw or ("html" if is_html(met) else None)


_FAILURES: dict[CallClass, type[Misconfigured | ContractBroken | Rejected]] = {
    CallClass.MISCONFIGURED: Misconfigured,
    CallClass.BROKEN: ContractBroken,
    CallClass.REJECTED: Rejected,
}


def error_of(judgement: Classified[M], call_facts: CallFacts) -> BrokerError | None:
    """What is to be raised for this try, or None: it was answered as the contract says."""
    if judgement.verdict is CallClass.UNAVAILABLE:
        return Unavailable(call_facts, judgement.retry_after)
    if judgement.verdict is CallClass.REFUSED and judgement.fault is not None:
        return Refused(FAULT_REASONS[judgement.fault], call_facts=call_facts)
    failure = _FAILURES.get(judgement.verdict)
    return failure(call_facts) if failure else None
