"""Classifies the result of one try: the table of docs/architecture.md#outcomes as data.

Pure: no I/O, no clock. Only status, known fault and Retry-After of an answer are used; a problem document's `title`
and `detail` are never read.
"""

from __future__ import annotations

import json
import re
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
from schemas.external import read_answer


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A complete answer. `status` None: it was not HTTP. `flaw`: why the body is missing, as a word for `CallFacts`."""

    status: int | None
    content_type: str = ""
    body: bytes = field(default=b"", repr=False)
    flaw: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No complete answer. `connected`: the request may have been received. `setup`: a person must correct the setup."""

    what: str
    connected: bool
    setup: bool = False


CallResult = HttpAnswer | NoAnswer


class CallClass(Enum):
    """The class of a single try (docs/architecture.md#outcomes)."""

    DONE = "the answer of the contract"
    ABSENT = "the contract's fault for an unknown booking"
    RECEIVED = "412 after a try that may have been taken in"
    REFUSED = "a fault of the contract"
    UNAVAILABLE = "temporary failure"
    MISCONFIGURED = "wrong setup"
    BROKEN = "the contract is broken"
    REJECTED = "another 4xx"


# The first row that has the status applies; a status in no row (600 and more) breaks the contract.
STATUS_ROWS: tuple[tuple[Container[int], CallClass], ...] = (
    (frozenset({408, 429, *range(500, 600)}), CallClass.UNAVAILABLE),
    (frozenset({401, 403, 404, 405, 407}), CallClass.MISCONFIGURED),
    (range(400, 500), CallClass.REJECTED),
)
# The words of `NoAnswer.what` for a try that timed out.
TIMEOUTS = frozenset({"timeout", "connect-timeout"})
# nginx accepts the handshake and refuses a wrong or missing client certificate with a 400 and this page.
CERTIFICATE_PAGES = {
    b"No required SSL certificate was sent": "client-certificate-wanted",
    b"The SSL certificate error": "client-certificate-refused",
}
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_PROLOG = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?(?:\s|<!--.*?-->|<\?.*?\?>)*", re.DOTALL)
_PAGE_STARTS = tuple(b"<" + tag for tag in (b"!doctype html", b"html", b"head", b"body", b"title", b"script"))
_PAGE_LOOK_BYTES = 4096
# For a create, accept or cancel these two mean "not done" (docs/architecture.md#outcomes).
NOT_DONE = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Classified(Generic[M]):
    """One classified try. `sent`: it may have been received. `unanswered`: it was sent and got no complete answer."""

    call_class: CallClass
    what: str
    sent: bool = True
    unanswered: bool = False
    status: int | None = None
    fault: Fault | None = None
    retry_after: float | None = None
    body: M | None = None
    # Paths of the parts that were left out of `body` as unreadable.
    left_out: tuple[str, ...] = ()

    def leaves_unknown(self, kind: CallKind) -> bool:
        """Whether it was a create, accept or cancel that was sent and got no answer that the contract allows.

        See docs/architecture.md#unknown. `allerede-modtaget` counts too.
        """
        if kind is not CallKind.COMMIT or not self.sent or self.call_class is CallClass.DONE:
            return False
        if self.call_class is CallClass.REFUSED:
            # It says that one of our tries arrived, not what the system did with it.
            return self.fault is Fault.ALREADY_RECEIVED
        return self.status not in NOT_DONE

    @property
    def health(self) -> CallHealth:
        """What the circuit breaker is told about the system."""
        if self.call_class is CallClass.UNAVAILABLE:
            # A Retry-After is an orderly answer: the bulkhead keeps the pause, the breaker stays closed.
            orderly = self.status in NOT_DONE and self.retry_after is not None
            return CallHealth.NEITHER if orderly else CallHealth.FAILED
        if self.call_class is CallClass.BROKEN:
            return CallHealth.FAILED
        # Not sent: our own setup is wrong.
        return CallHealth.ANSWERED if self.sent else CallHealth.NEITHER


def classify(call: Call[M], result: CallResult, *, after_unanswered: bool = False) -> Classified[M]:
    """Classify one try. `after_unanswered`: an earlier try with this x-requestId may have been taken in."""
    if isinstance(result, NoAnswer):
        call_class = CallClass.MISCONFIGURED if result.setup else CallClass.UNAVAILABLE
        return Classified(call_class, result.what, sent=result.connected, unanswered=result.connected)
    status = result.status
    if status is None:
        return Classified(CallClass.BROKEN, result.flaw or "not-http")
    if status == call.expect or status in call.also_good:
        return _good_status(call, result, status)
    if status == 412 and after_unanswered and call.kind is not CallKind.READ:
        return Classified(CallClass.RECEIVED, "status 412", status=412)
    fault = fault_of(result, status)
    if fault is not None:
        absent = status == 404 and fault is call.absent_fault
        call_class = CallClass.ABSENT if absent else CallClass.REFUSED
        return Classified(call_class, f"status {status}", status=status, fault=fault)
    return _other_status(result, status)


def fault_of(answer: HttpAnswer, status: int) -> Fault | None:
    """The contract's fault that a 4xx names in its JSON body, or None."""
    if not 400 <= status < 500:
        return None
    try:
        document = json.loads(answer.body)
        return Fault(document["type"]) if isinstance(document, dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def is_html(answer: HttpAnswer) -> bool:
    """Whether the body is a web page, for example a login form or a proxy's error page."""
    labelled = answer.content_type in HTML_TYPES
    if answer.flaw is not None:
        return labelled
    # Frameworks label every answer text/html, also an empty one and a plain "ok": the body decides.
    look = answer.body[:_PAGE_LOOK_BYTES]
    prolog = _PROLOG.match(look)
    start = look[prolog.end() if prolog else 0 :].replace(b"\0", b"")[:32].lower()  # UTF-16 has NULs
    return start.startswith(_PAGE_STARTS) or (labelled and start.startswith(b"<"))


def _good_status(call: Call[M], answer: HttpAnswer, status: int) -> Classified[M]:
    if call.any_body:
        flaw = "html" if is_html(answer) else None
    else:
        flaw = _flaw(answer) or ("body" if call.model is None and answer.body else None)
    if flaw is None and call.model is not None:
        parsed = _parsed(call, call.model, answer.body)
        if parsed is not None:
            body, left_out = parsed
            return Classified(CallClass.DONE, f"status {status}", status=status, body=body, left_out=left_out)
        flaw = "body"
    if flaw is not None:
        return Classified(CallClass.BROKEN, flaw, status=status)
    return Classified(CallClass.DONE, f"status {status}", status=status)


def _parsed(call: Call[M], model: type[M], body: bytes) -> tuple[M, tuple[str, ...]] | None:
    try:
        parsed, left_out = read_answer(model, body)
    except ValidationError:
        return None
    return (parsed, left_out) if call.agrees is None or call.agrees(parsed) else None


def _other_status(answer: HttpAnswer, status: int) -> Classified[M]:
    call_class = next((row for statuses, row in STATUS_ROWS if status in statuses), CallClass.BROKEN)
    what = f"status {status}"
    if 300 <= status < 400:
        what = "redirect"
    elif status == 400 and (page := _certificate_page(answer)):
        call_class, what = CallClass.MISCONFIGURED, page
    elif call_class in (CallClass.REJECTED, CallClass.BROKEN) and (flaw := _flaw(answer)):
        call_class, what = CallClass.BROKEN, flaw
    retry_after = answer.retry_after if call_class is CallClass.UNAVAILABLE else None
    return Classified(call_class, what, status=status, retry_after=retry_after)


def _certificate_page(answer: HttpAnswer) -> str | None:
    if not is_html(answer):
        return None
    return next((what for page, what in CERTIFICATE_PAGES.items() if page in answer.body), None)


def _flaw(answer: HttpAnswer) -> str | None:
    return "html" if is_html(answer) else answer.flaw


_FAILURES: dict[CallClass, type[Misconfigured | ContractBroken | Rejected]] = {
    CallClass.MISCONFIGURED: Misconfigured,
    CallClass.BROKEN: ContractBroken,
    CallClass.REJECTED: Rejected,
}


def error_of(classified: Classified[M], call_facts: CallFacts) -> BrokerError | None:
    """The error to raise for this try, or None if the answer is one that the contract allows."""
    if classified.call_class is CallClass.UNAVAILABLE:
        return Unavailable(call_facts, classified.retry_after)
    if classified.call_class is CallClass.REFUSED and classified.fault is not None:
        return Refused(FAULT_REASONS[classified.fault], call_facts=call_facts)
    failure = _FAILURES.get(classified.call_class)
    return failure(call_facts) if failure else None
