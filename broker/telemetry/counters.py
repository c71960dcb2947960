"""What this process has counted since its start: the one place that counts.

Plain numbers in plain dictionaries, because a message must not pay for being counted: one key, one addition, no lock
(there is one event loop). `metrics.py` shows them to Prometheus when it asks; the ledger's flow of each minute is the
difference of two `counted()`. One for each process, like the log, so that nobody has to be handed a counter.

Labels are from closed lists or from the directory, never from outside: a type that nobody knows is `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from time import monotonic

from schemas.codes import ErrorCode, Status
from schemas.requests import REQUESTS

Labels = tuple[str, ...]

OTHER = ("other",)
TYPES = {type_: (type_,) for type_ in REQUESTS}
"""The label of each type that we know; a stranger's own word is no label."""

ENDS = (
    *((status.value, "") for status in Status if status is not Status.FAILED),
    *((Status.FAILED.value, str(int(code))) for code in ErrorCode),
    ("dead", ""),
)
"""Every way in which a request ends: status and error code. `dead`: put aside for a person, without an answer."""

REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30)
"""Seconds. A citizen waits at most 30."""
CALL_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15)
"""Seconds. Calls end after http.total_timeout_seconds, 8 unless said."""
SHORT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
"""Seconds: confirms, commits, the event loop."""
SIZE_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Rows in one commit."""


class Histogram:
    """How often values fell under each bound, and their sum: a histogram for Prometheus, at the cost of a bisection."""

    __slots__ = ("bounds", "buckets", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.buckets)


class Histograms(defaultdict[Labels, Histogram]):
    """A spread for each key, made when it is first met. Keys are from closed lists, which is its bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__()
        self._bounds = bounds

    def __missing__(self, key: Labels) -> Histogram:
        self[key] = spread = Histogram(self._bounds)
        return spread


class Counters:
    """The counts of one process. The methods are called where it happens, once each."""

    def __init__(self) -> None:
        types = (*TYPES.values(), OTHER)
        # From the start with zeros: Prometheus does not see a first one that comes out of nothing.
        self.arrivals: defaultdict[Labels, int] = defaultdict(int, dict.fromkeys(types, 0))  # (type,)
        # (type, status, error code)
        self.answers: defaultdict[Labels, int] = defaultdict(int, {(*t, *e): 0 for t in types for e in ENDS})
        self.carrying = Histograms(REQUEST_BOUNDS)  # (type,)
        self.calls: defaultdict[Labels, int] = defaultdict(int)  # (system, step, verdict)
        self.calling = Histograms(CALL_BOUNDS)  # (system, step)
        self.turned_away: defaultdict[Labels, int] = defaultdict(int)  # (system, why)
        self.retries: defaultdict[Labels, int] = defaultdict(int)  # (system, step)
        self.created: defaultdict[Labels, int] = defaultdict(int)  # (supplier,)
        self.attempts: defaultdict[Labels, int] = defaultdict(int)  # (supplier, verdict)
        self.delivering = Histograms(CALL_BOUNDS)  # (supplier,)
        self.publishes: defaultdict[Labels, int] = defaultdict(int)  # (exchange, what RabbitMQ said)
        self.confirming = Histograms(SHORT_BOUNDS)  # (exchange,)
        self.batch_rows = Histograms(SIZE_BOUNDS)  # (what,)
        self.batch_seconds = Histograms(SHORT_BOUNDS)  # (what,)
        self.lags = Histograms(SHORT_BOUNDS)  # ()

    # -- requests --------------------------------------------------------------------------------------------

    def arrived(self, type_: str | None) -> None:
        """A request was taken from its queue; what it says of its type is not checked yet."""
        self.arrivals[TYPES.get(type_ or "", OTHER)] += 1

    def answered(self, type_: str | None, status: str, error_code: int | None, began: float) -> None:
        """It was answered (or put aside: status `dead`) and acknowledged; `began` is monotonic."""
        key = TYPES.get(type_ or "", OTHER)
        self.answers[(*key, status, str(int(error_code)) if error_code else "")] += 1
        self.carrying[key].add(monotonic() - began)

    # -- calls to external systems -----------------------------------------------------------------------------

    def called(self, system: str, step: str, verdict: str, seconds: float) -> None:
        """One try left for a system (a supplier's attempt too) and came to this verdict."""
        self.calls[(system, step, verdict.lower())] += 1
        self.calling[(system, step)].add(seconds)

    # -- reports -----------------------------------------------------------------------------------------------

    def reported(self, supplier: str) -> None:
        """A report was made, not merged into one that was there; "" while nobody is known to hear of it."""
        self.created[(supplier,)] += 1

    def attempted(self, supplier: str, verdict: str, began: float) -> None:
        """An attempt to deliver a report ended; `began` is monotonic."""
        self.attempts[(supplier, verdict)] += 1
        self.delivering[(supplier,)].add(monotonic() - began)

    # -- RabbitMQ and the ledger ---------------------------------------------------------------------------------

    def published(self, exchange: str, said: str, began: float) -> None:
        """RabbitMQ's word on one publish; `began` is monotonic."""
        self.publishes[(exchange, said)] += 1
        self.confirming[(exchange,)].add(monotonic() - began)

    def committed(self, what: str, rows: int, began: float) -> None:
        """One group commit of the ledger."""
        self.batch_rows[(what,)].add(rows)
        self.batch_seconds[(what,)].add(monotonic() - began)

    # -- for who wants differences -----------------------------------------------------------------------------

    def counted(self) -> dict[Labels, int]:
        """Everything that only grows, flat: ("answers", type, status, error code) and so on. A copy.

        The first word is one of COUNTS; the others are its labels, as METRICS in metrics.py names them.
        """
        return {(name, *key): number for name in COUNTS for key, number in getattr(self, name).items()}


COUNTS = ("arrivals", "answers", "calls", "turned_away", "retries", "created", "attempts", "publishes")

COUNTERS = Counters()
"""This process's."""
