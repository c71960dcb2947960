"""The record of the calls to a system: the last calls, their breaches of the contract, the x-requestIds of a week.

The sentence about a breach contains no personal data.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

MAX_CALLS = 50_000
MAX_BREACHES = 1_000
MAX_REMEMBERED = 500_000
REMEMBERED_FOR = timedelta(days=7)


@dataclass
class Call:
    """One call and how it ended. `worked`: the system did the work, whatever it answered."""

    operation: str
    jobcenter: str
    citizen: str
    x_request_id: str
    traceparent: str
    offer: str
    invitation: str
    at: datetime
    in_flight: int
    body: dict[str, Any] = field(repr=False)
    problems: list[str] = field(default_factory=list)
    worked: bool = False
    status: int | None = None  # None: not answered (yet)

    def to_json(self) -> dict[str, Any]:
        """The call without its body."""
        shown = {k: v for k, v in vars(self).items() if k != "body"}
        return shown | {"at": self.at.isoformat()}


class RequestIds:
    """The x-requestIds of the last seven days, at most MAX_REMEMBERED; the oldest are dropped first."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, datetime] = OrderedDict()

    def seen(self, x_request_id: str, now: datetime) -> bool:
        """Whether it came within the last seven days."""
        at = self._seen.get(x_request_id)
        return at is not None and now - at < REMEMBERED_FOR

    def remember(self, x_request_id: str, now: datetime) -> None:
        """Add an x-requestId."""
        self._seen[x_request_id] = now
        self._seen.move_to_end(x_request_id)
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)

    def clear(self) -> None:
        """Delete all x-requestIds."""
        self._seen.clear()


class Journal:
    """The last calls and the breaches of one system. Breaches beyond MAX_BREACHES are only counted."""

    def __init__(self) -> None:
        self.calls: deque[Call] = deque(maxlen=MAX_CALLS)
        self.breaches: list[str] = []
        self.breach_count = 0
        self.in_flight = 0
        self.most_in_flight = 0

    def begin(self, call: Call) -> None:
        """Add a call that has arrived, and its breaches."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        call.in_flight = self.in_flight
        self.calls.append(call)
        for problem in call.problems:
            self.breach(f"{call.operation}: {problem}")

    def breach(self, sentence: str) -> None:
        """Add a breach of the contract."""
        self.breach_count += 1
        if len(self.breaches) < MAX_BREACHES:
            self.breaches.append(sentence)

    def clear(self) -> None:
        """Delete calls and breaches. Calls in flight stay counted."""
        self.calls.clear()
        self.breaches.clear()
        self.breach_count, self.most_in_flight = 0, self.in_flight
