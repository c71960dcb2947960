"""What a system shall do with its next calls: an ordered, bounded list of steps.

Data and matching only; faulty_answers.py acts it out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from sandbox.contract import FAULT_STATUS
from sandbox.journal import Call

OPERATIONS = ("offers", "times", "find", "reserve", "create", "accept", "cancel", "report")
ACTIONS = (
    "ok",  # as it should be: lets some calls pass before the next step
    "slow",  # waits `seconds`, then works and answers
    "hang",  # holds the connection until released, cut by the client, or `seconds` are over; then drops it
    "status",  # answers `status`, with `fault` as problem+json, with `retry_after` as a header
    "garbage",  # 200 and no JSON
    "wrong_shape",  # 200 and JSON of another shape
    "html",  # 200 and a web page
    "redirect",  # 302
    "reset",  # cuts the connection without an answer
    "half",  # half an answer, then cut
    "huge",  # 200 and `size` bytes
    "bomb",  # 200 and gzip that unpacks to `size` bytes
    "snatch",  # somebody else takes the wished time first; then as it should be
)
MAX_STEPS = 10_000
MAX_SECONDS = 300.0
MAX_SIZE = 64 * 1024 * 1024


class BadStep(ValueError):
    """A step that cannot be acted out; the text says which field and why."""


@dataclass
class Step:
    """One step, for `times` calls or (None) until cleared. Filters that are None fit every call.

    `after_work`: the work is done first, then the bad answer given. `remember`: the x-requestId counts as
    received even if the work is not done. `size` in bytes; `label`: to clear it by.
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
        wrong = [
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
        if wrong:
            raise BadStep(f"out of range: {', '.join(wrong)}")

    def fits(self, call: Call) -> bool:
        """Whether this step is for that call."""
        wanted = (self.citizen, self.offer, self.jobcenter, self.invitation)
        has = (call.citizen, call.offer, call.jobcenter, call.invitation)
        pairs = zip(wanted, has, strict=True)
        return self.operation in ("any", call.operation) and all(want in (None, got) for want, got in pairs)


def step_from(raw: Any) -> Step:
    """A step from JSON. Raises BadStep naming what is unknown or wrong."""
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
    """The steps of one system; the first that fits a call is used."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def add(self, step: Step) -> None:
        """Put a step last. Raises BadStep when there are too many."""
        if len(self._steps) >= MAX_STEPS:
            raise BadStep(f"more than {MAX_STEPS} steps")
        self._steps.append(step)

    def take(self, call: Call) -> Step | None:
        """The step for this call, used up by one."""
        step = next((s for s in self._steps if s.fits(call)), None)
        if step is not None and step.times is not None:
            step.times -= 1
            if step.times == 0:
                self._steps.remove(step)
        return step

    def clear(self, label: str | None = None) -> None:
        """Forget all steps, or those with this label."""
        self._steps = [s for s in self._steps if label is not None and s.label != label]

    def to_json(self) -> list[dict[str, Any]]:
        """What is still to come."""
        return [asdict(step) for step in self._steps]
