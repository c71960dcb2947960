"""A call to an external system, as data.

`Call` is one row of docs/contract.md#calls, `Caller` says for whom and until when, `Reply` is an answer that the
contract allows. All other results are in `classify.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, Self, TypeGuard, TypeVar
from uuid import UUID, uuid4, uuid5

from pydantic import BaseModel

from broker.errors import CallFacts, NotSent
from schemas.codes import Fault
from schemas.envelope import Request
from schemas.personal import Cpr

M = TypeVar("M", bound=BaseModel)

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class CallKind(Enum):
    """What the call changes in the other system. It decides how the call may be repeated."""

    READ = "read"
    RESERVE = "reserve"
    # Create, accept, cancel: without a known answer the booking is Unknown (docs/architecture.md#unknown).
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Call(Generic[M]):
    """One call of the contract. `expect` is its only good status, `model` the model of its body (None: no body).

    `absent_fault`: a 404 with this fault is an answer too; the body of its `Reply` is None. `agrees` checks what the
    model cannot know, for example that the booking is the one that was asked for. `also_good` (more good statuses) and
    `any_body` (the body is not checked) are for webhooks, which have no contract. `alone`: its good answer has nothing
    that tells whose it is, so it goes on a connection that carried no other call before.
    """

    step: str
    kind: CallKind
    method: str
    path: str
    expect: int
    model: type[M] | None = None
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=False)
    absent_fault: Fault | None = None
    agrees: Callable[[M], bool] | None = field(default=None, repr=False)
    also_good: frozenset[int] = frozenset()
    any_body: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Reply(Generic[M]):
    """An answer that the contract allows. `body` is None for 204, for absence, and for a 412 after a lost reserve."""

    body: M | None
    status: int


def read_only(_timeout: float) -> None:
    """`may_commit` for read-only callers: always raises NotSent."""
    raise NotSent(CallFacts("nobody", "commit", "reads-only", sent=False))


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a call is made, and until when (`answer_by`, seconds of `time.monotonic()`).

    `may_commit(timeout)` is called right before each try of a create, accept or cancel. It raises `NotSent` when a
    try that may take `timeout` seconds must not be sent now.
    """

    request_id: UUID
    cpr: Cpr
    jobcenter_code: str
    traceparent: str | None
    answer_by: float
    may_commit: Callable[[float], None]

    @classmethod
    def of(
        cls,
        message: Request,
        *,
        traceparent: str | None,
        answer_by: float,
        may_commit: Callable[[float], None] = read_only,
    ) -> Self:
        """The caller for this message, read-only unless `may_commit` is given."""
        return cls(
            request_id=message.request_id,
            cpr=message.cpr,
            jobcenter_code=message.jobcenter_code,
            traceparent=traceparent,
            answer_by=answer_by,
            may_commit=may_commit,
        )

    def headers(self, x_request_id: str) -> dict[str, str]:
        """The headers of the contract (docs/contract.md#headers)."""
        return contract_headers(self.cpr, self.jobcenter_code, x_request_id) | trace_header(self.traceparent)

    def x_request_id(self, call: Call[M], try_key: int) -> str:
        """36 characters, derived from requestId, step and `try_key`; random for a read (docs/contract.md#request-ids)."""
        if call.kind is CallKind.READ:
            return str(uuid4())
        return str(uuid5(self.request_id, f"{call.step}:{try_key}"))


def contract_headers(cpr: Cpr, jobcenter_code: str, x_request_id: str) -> dict[str, str]:
    """The three headers that the contract requires (docs/contract.md#headers)."""
    return {
        "x-civilregistrationIdentifier": cpr.reveal(),
        "x-requestId": x_request_id,
        "x-activeOrganisation": jobcenter_code,
    }


def is_traceparent(value: object) -> TypeGuard[str]:
    """Whether this is a valid traceparent of W3C Trace Context."""
    return isinstance(value, str) and _TRACEPARENT.fullmatch(value) is not None


def trace_header(traceparent: str | None) -> dict[str, str]:
    """The W3C trace header of a call; empty for an invalid traceparent."""
    return {"traceparent": traceparent} if is_traceparent(traceparent) else {}
