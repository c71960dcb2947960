"""Counters and histograms of this process since its start.

health/metrics.py exports them to Prometheus; the ledger stores the difference of two `counted()` every minute. There is
one object per process, COUNTERS, like the log.

Label values come from closed lists or from the directory, never from messages: an unknown type is counted as `other`.
"""

# Plain numbers in dictionaries, because counting must cost a message nothing: one key, one addition, no lock (there is
# one event loop). See docs/adr/0014.

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
"""The label of each known type."""

ENDS = (
    *((status.value, "") for status in Status if status is not Status.FAILED),
    *((Status.FAILED.value, str(int(code))) for code in ErrorCode),
    ("dead", ""),
)
"""Every way in which a request can end: status and error code. `dead`: dead-lettered without an answer."""

REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30)
"""Seconds. A citizen waits at most 30."""
CALL_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15)
"""Seconds. Calls end after http.total_timeout_seconds, by default 8."""
SHORT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
"""Seconds, for confirms, commits and the event loop."""
SIZE_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Rows in one commit."""


class Histogram:
    """A histogram for Prometheus: number of values per bucket, and their sum."""

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
    """A histogram for each key, created at its first use. Closed lists of labels bound the number of keys."""

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__()
        self._bounds = bounds

    def __missing__(self, key: Labels) -> Histogram:
        self[key] = histogram = Histogram(self._bounds)
        return histogram


class Counters:
    """The counters of one process. Each method is called once for each event it counts."""

    def __init__(self) -> None:
        types = (*TYPES.values(), OTHER)
        # All keys exist from the start: Prometheus cannot see the increase of a counter that appears with the value 1.
        self.arrivals: defaultdict[Labels, int] = defaultdict(int, dict.fromkeys(types, 0))  # (type,)
        # (type, status, error code)
        self.answers: defaultdict[Labels, int] = defaultdict(
            int, {(*type_, *end): 0 for type_ in types for end in ENDS}
        )
        self.carrying = Histograms(REQUEST_BOUNDS)  # (type,)
        self.calls: defaultdict[Labels, int] = defaultdict(int)  # (system, step, result class)
        self.calling = Histograms(CALL_BOUNDS)  # (system, step)
        self.turned_away: defaultdict[Labels, int] = defaultdict(int)  # (system, reason)
        self.retries: defaultdict[Labels, int] = defaultdict(int)  # (system, step)
        self.created: defaultdict[Labels, int] = defaultdict(int)  # (supplier,)
        self.attempts: defaultdict[Labels, int] = defaultdict(int)  # (supplier, decision)
        self.delivering = Histograms(CALL_BOUNDS)  # (supplier,)
        self.publishes: defaultdict[Labels, int] = defaultdict(int)  # (exchange, confirm)
        self.confirming = Histograms(SHORT_BOUNDS)  # (exchange,)
        self.batch_rows = Histograms(SIZE_BOUNDS)  # (kind of batch,)
        self.batch_seconds = Histograms(SHORT_BOUNDS)  # (kind of batch,)
        self.lags = Histograms(SHORT_BOUNDS)  # ()

    # -- requests --------------------------------------------------------------------------------------------

    def arrived(self, type_: str | None) -> None:
        """A request arrived from its queue; its type is not checked yet."""
        self.arrivals[TYPES.get(type_ or "", OTHER)] += 1

    def answered(self, type_: str | None, status: str, error_code: int | None, began: float) -> None:
        """A request was answered (or dead-lettered: status `dead`) and acknowledged; `began` is monotonic time."""
        key = TYPES.get(type_ or "", OTHER)
        self.answers[(*key, status, str(int(error_code)) if error_code else "")] += 1
        self.carrying[key].add(monotonic() - began)

    # -- calls to external systems -----------------------------------------------------------------------------

    def called(self, system: str, step: str, verdict: str, seconds: float) -> None:
        """One try of a call to a system (or of a delivery to a supplier) ended, with this class of result."""
        self.calls[(system, step, verdict.lower())] += 1
        self.calling[(system, step)].add(seconds)

    # -- reports -----------------------------------------------------------------------------------------------

    def reported(self, supplier: str) -> None:
        """A report was created (merged ones do not count); `supplier` is "" if it is not known."""
        self.created[(supplier,)] += 1

    def attempted(self, supplier: str, verdict: str, began: float) -> None:
        """An attempt to deliver a report ended; `began` is monotonic time."""
        self.attempts[(supplier, verdict)] += 1
        self.delivering[(supplier,)].add(monotonic() - began)

    # -- RabbitMQ and the ledger ---------------------------------------------------------------------------------

    def published(self, exchange: str, said: str, began: float) -> None:
        """A publish was confirmed, refused or neither; `began` is monotonic time."""
        self.publishes[(exchange, said)] += 1
        self.confirming[(exchange,)].add(monotonic() - began)

    def committed(self, what: str, rows: int, began: float) -> None:
        """The ledger committed one batch; `began` is monotonic time."""
        self.batch_rows[(what,)].add(rows)
        self.batch_seconds[(what,)].add(monotonic() - began)

    # -- for differences -----------------------------------------------------------------------------

    def counted(self) -> dict[Labels, int]:
        """A copy of all counters in one dictionary, with keys such as ("answers", type, status, error code).

        The first element is one of COUNTS; the others are its labels, named in METRICS of health/metrics.py.
        """
        return {(name, *key): number for name in COUNTS for key, number in getattr(self, name).items()}


COUNTS = ("arrivals", "answers", "calls", "turned_away", "retries", "created", "attempts", "publishes")

COUNTERS = Counters()
"""The counters of this process."""
