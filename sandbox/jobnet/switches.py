"""The switches of the sandbox page: what a system can be made to do, as steps of sandbox/scripting.py.

Data, and which of it is on. A switch stays until another one is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.jobnet.request_store import Unknown

LABEL = "switch:"
WELL, DOWN = "well", "down"
PLANNER, BOOKING, SUPPLIER = "planner", "booking system", "supplier"
EVERYBODY = (PLANNER, BOOKING, SUPPLIER)


@dataclass(frozen=True)
class Switch:
    """One thing to try: its name, what it does in a sentence, whom it fits, and the steps for its calls."""

    key: str
    name: str
    does: str
    kinds: tuple[str, ...]
    steps: tuple[Mapping[str, Any], ...] = ()

    @property
    def script(self) -> list[dict[str, Any]]:
        """The steps for the system's script."""
        common = {"operation": "any", "times": None, "label": f"{LABEL}{self.key}"}
        return [{**common, **step} for step in self.steps]


SWITCHES = (
    Switch(WELL, "Well", "Works as it should; forgets every step it was told before.", EVERYBODY),
    Switch(
        "slow",
        "Slow",
        "Works, but thinks a second about each call.",
        EVERYBODY,
        ({"action": "slow", "seconds": 1},),
    ),
    Switch(
        "silent",
        "Silent",
        "Takes the call and never answers.",
        EVERYBODY,
        ({"action": "hang", "seconds": 20},),
    ),
    Switch(DOWN, "Down", "Nobody listens: connections are refused.", EVERYBODY),
    Switch(
        "broken", "Broken", "Answers everything with 500.", EVERYBODY, ({"action": "status", "status": 500},)
    ),
    Switch(
        "page", "Web page", "Answers 200 with a web page about maintenance.", EVERYBODY, ({"action": "html"},)
    ),
    Switch(
        "cut",
        "Cut after booking",
        "Books, then cuts the line before it says so. The broker looks the booking up.",
        (BOOKING,),
        ({"operation": "create", "action": "reset", "after_work": True},),
    ),
    Switch(
        "lost",
        "Lost after booking",
        "Books, cuts the line, and cannot be asked either: nobody knows until it is well again.",
        (BOOKING,),
        (
            {"operation": "create", "action": "reset", "after_work": True},
            {"operation": "find", "action": "status", "status": 503},
        ),
    ),
    Switch(
        "quicker",
        "Somebody is quicker",
        "Gives the time away just before it is reserved.",
        (BOOKING,),
        ({"operation": "reserve", "action": "snatch"},),
    ),
    Switch(
        "busy",
        "Busy",
        "Asks with 429 and Retry-After to wait ten seconds: the whole lane waits.",
        (SUPPLIER,),
        ({"action": "status", "status": 429, "retry_after": "10"},),
    ),
    Switch(
        "refuses",
        "Refuses",
        "Says that the report is wrong: a dead letter for a person to look at.",
        (SUPPLIER,),
        ({"action": "status", "status": 400, "fault": "ugyldig-besked"},),
    ),
    Switch(
        "locked",
        "Locked out",
        "Answers 401, as when our key is no longer known: the lane parks and tells a person.",
        (SUPPLIER,),
        ({"action": "status", "status": 401},),
    ),
)


def switches_for(kind: str) -> list[Switch]:
    """What a system of this kind can be made to do."""
    return [switch for switch in SWITCHES if kind in switch.kinds]


def switch_named(kind: str, key: str) -> Switch:
    """Raises Unknown for one that this kind does not have."""
    for switch in switches_for(kind):
        if switch.key == key:
            return switch
    raise Unknown(key)


def which_is_on(is_up: bool, steps: Iterable[Mapping[str, Any]]) -> str | None:
    """The key of the switch that is on; None when the script holds steps of somebody else's."""
    if not is_up:
        return DOWN
    labels = {str(step.get("label") or "") for step in steps}
    if not labels:
        return WELL
    only = labels.pop()
    return only.removeprefix(LABEL) if not labels and only.startswith(LABEL) else None
