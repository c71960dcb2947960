"""What a call to an external system is: data only.

`Call` is one row of DESIGN 4, `Caller` says for whom and until when, `Reply` is what came back as the
contract says. What else can come back is in `classify.py`.
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
    """What a repetition of the call would do (DESIGN 5)."""

    READ = "read"
    RESERVE = "reserve"
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Call(Generic[M]):
    """One call of the contract: `expect` is its only good status, `model` its body (None: no body at all).

    `also_good` and `any_body` are for what is no call of that contract: a webhook. `absent_fault` on a 404 is
    an answer too (None comes back); `agrees` checks what the model cannot know, for example that the booking
    is the one that was asked for.
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


@dataclass(frozen=True, slots=True)
class Reply(Generic[M]):
    """An answer as the contract says.

    `body` is None for 204, for absence, and for a 412 after a lost reserve.
    """

    body: M | None
    status: int


def reads_only(_timeout: float) -> None:
    """The permission of who only asks: no create, accept or cancel ever leaves. Raises NotSent."""
    raise NotSent(CallFacts("nobody", "commit", "reads-only", sent=False))


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a call is made, and until when (`answer_by`, seconds of `time.monotonic()`).

    `may_commit(timeout)` raises `NotSent` when a create, accept or cancel that may take `timeout` seconds
    must not leave now. It is asked right before each such try leaves.
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
        may_commit: Callable[[float], None] = reads_only,
    ) -> Self:
        """Who sent this message; may only read unless told otherwise."""
        return cls(
            request_id=message.request_id,
            cpr=message.cpr,
            jobcenter_code=message.jobcenter_code,
            traceparent=traceparent,
            answer_by=answer_by,
            may_commit=may_commit,
        )

    def headers(self, x_request_id: str) -> dict[str, str]:
        """The headers of the contract (DESIGN 4)."""
        return contract_headers(self.cpr, self.jobcenter_code, x_request_id) | trace_header(self.traceparent)

    def x_request_id(self, call: Call[M], try_key: int) -> str:
        """36 characters: derived from requestId, step and try; a read always gets a fresh one (DESIGN 4)."""
        if call.kind is CallKind.READ:
            return str(uuid4())
        return str(uuid5(self.request_id, f"{call.step}:{try_key}"))


def contract_headers(cpr: Cpr, jobcenter_code: str, x_request_id: str) -> dict[str, str]:
    """For whom a call is made, and which try it is (DESIGN 4)."""
    return {
        "x-civilregistrationIdentifier": cpr.reveal(),
        "x-requestId": x_request_id,
        "x-activeOrganisation": jobcenter_code,
    }


def is_traceparent(value: object) -> TypeGuard[str]:
    """Whether this is a traceparent of W3C Trace Context, and not a stranger's fancy."""
    return isinstance(value, str) and _TRACEPARENT.fullmatch(value) is not None


def trace_header(traceparent: str | None) -> dict[str, str]:
    """The W3C trace of a call. A traceparent that is none is left out."""
    return {"traceparent": traceparent} if is_traceparent(traceparent) else {}
