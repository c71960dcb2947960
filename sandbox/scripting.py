"""The script of a system: an ordered list of steps that say how it treats its next calls.

Data and matching only; faulty_answers.py carries the steps out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from sandbox.contract import FAULT_STATUS
from sandbox.journal import Call

OPERATIONS = ("offers", "times", "find", "reserve", "create", "accept", "cancel", "report")
ACTIONS = (
    "ok",  # answers normally: lets some calls pass before the next step
    "slow",  # waits `seconds`, then works and answers
    "hang",  # no answer until released, closed by the client, or `seconds` are over; then cuts the connection
    "status",  # answers `status`, with `fault` as problem+json, with `retry_after` as a header
    "garbage",  # 200 and invalid JSON
    "wrong_shape",  # 200 and JSON of another shape
    "html",  # 200 and a web page
    "redirect",  # 302
    "reset",  # cuts the connection without an answer
    "half",  # sends half an answer, then cuts the connection
    "huge",  # 200 and `size` bytes
    "bomb",  # 200 and gzip that unpacks to `size` bytes
    "snatch",  # another citizen books the wished time first; then answers normally
)
MAX_STEPS = 10_000
MAX_SECONDS = 300.0
MAX_SIZE = 64 * 1024 * 1024


class BadStep(ValueError):
    """An invalid step; the text names the field and the reason."""


@dataclass
class Step:
    """One step, for `times` calls or (None) until cleared. A filter that is None fits every call.

    `after_work`: the work is done before the faulty answer. `remember`: the x-requestId counts as received even if the
    work is not done. `size` is in bytes. Steps can be cleared by their `label`.
    """

    operation: str = "any"
    action: str = "ok"
    times: int | None = 1
    after_work: bool = False
    remember: bool = False
    seconds: float = 60.0
    status: int = 500
    fault: str | None = None
    retry_after: str | None = None
    size: int = 8 * 1024 * 1024
    citizen: str | None = None
    offer: str | None = None
    jobcenter: str | None = None
    invitation: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        invalid = [
            name
            for name, good in (
                ("operation", self.operation in (*OPERATIONS, "any")),
                ("action", self.action in ACTIONS),
                ("times", self.times is None or self.times >= 1),
                ("seconds", 0 <= self.seconds <= MAX_SECONDS),
                ("status", 200 <= self.status <= 599),
                ("fault", self.fault is None or self.fault in FAULT_STATUS),
                ("size", 0 <= self.size <= MAX_SIZE),
            )
            if not good
        ]
        if invalid:
            raise BadStep(f"out of range: {', '.join(invalid)}")

    def fits(self, call: Call) -> bool:
        """Whether this step applies to the call."""
        filters = (self.citizen, self.offer, self.jobcenter, self.invitation)
        actual = (call.citizen, call.offer, call.jobcenter, call.invitation)
        pairs = zip(filters, actual, strict=True)
        return self.operation in ("any", call.operation) and all(want in (None, got) for want, got in pairs)


def step_from(raw: Any) -> Step:
    """A step from JSON. Raises BadStep with the unknown or invalid fields."""
    if not isinstance(raw, dict):
        raise BadStep("a step is a JSON object")
    unknown = sorted(set(raw) - {f.name for f in fields(Step)})
    if unknown:
        raise BadStep(f"unknown: {', '.join(unknown)}")
    try:
        return Step(**raw)
    except TypeError as error:
        raise BadStep(f"wrong type: {error}") from None


class Script:
    """The steps of one system. The first step that fits a call is used."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def add(self, step: Step) -> None:
        """Append a step. Raises BadStep when there are too many."""
        if len(self._steps) >= MAX_STEPS:
            raise BadStep(f"more than {MAX_STEPS} steps")
        self._steps.append(step)

    def take(self, call: Call) -> Step | None:
        """The step for this call, or None; its `times` goes down by one."""
        step = next((s for s in self._steps if s.fits(call)), None)
        if step is not None and step.times is not None:
            step.times -= 1
            if step.times == 0:
                self._steps.remove(step)
        return step

    def clear(self, label: str | None = None) -> None:
        """Remove all steps, or those with this label."""
        self._steps = [s for s in self._steps if label is not None and s.label != label]

    def to_json(self) -> list[dict[str, Any]]:
        """The remaining steps."""
        return [asdict(step) for step in self._steps]
