"""The switches of the sandbox page: faults of a system, as script steps (sandbox/scripting.py).

A switch stays on until another one is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.jobnet.request_store import Unknown

LABEL = "switch:"
WELL, DOWN = "well", "down"
PLANNER, BOOKING, SUPPLIER = "planner", "booking system", "supplier"
ALL_KINDS = (PLANNER, BOOKING, SUPPLIER)


@dataclass(frozen=True)
class Switch:
    """One switch: its name, a sentence that describes it, the kinds of systems that have it, and its script steps."""

    key: str
    name: str
    does: str
    kinds: tuple[str, ...]
    steps: tuple[Mapping[str, Any], ...] = ()

    @property
    def script(self) -> list[dict[str, Any]]:
        """The steps for the system's script, with the label of this switch."""
        common = {"operation": "any", "times": None, "label": f"{LABEL}{self.key}"}
        return [{**common, **step} for step in self.steps]


SWITCHES = (
    Switch(WELL, "Well", "Works normally; its script is cleared.", ALL_KINDS),
    Switch(
        "slow",
        "Slow",
        "Works, but waits one second before each answer.",
        ALL_KINDS,
        ({"action": "slow", "seconds": 1},),
    ),
    Switch(
        "silent",
        "Silent",
        "Accepts the connection and never answers.",
        ALL_KINDS,
        ({"action": "hang", "seconds": 20},),
    ),
    Switch(DOWN, "Down", "Does not listen: connections are refused.", ALL_KINDS),
    Switch(
        "broken", "Broken", "Answers every call with 500.", ALL_KINDS, ({"action": "status", "status": 500},)
    ),
    Switch(
        "page", "Web page", "Answers 200 with a web page about maintenance.", ALL_KINDS, ({"action": "html"},)
    ),
    Switch(
        "cut",
        "Cut after booking",
        "Books, then cuts the connection before it answers. The broker looks the booking up.",
        (BOOKING,),
        ({"operation": "create", "action": "reset", "after_work": True},),
    ),
    Switch(
        "lost",
        "Lost after booking",
        "Books, cuts the connection, and look-ups fail, too: the outcome is uncertain until the switch is set to Well.",
        (BOOKING,),
        (
            {"operation": "create", "action": "reset", "after_work": True},
            {"operation": "find", "action": "status", "status": 503},
        ),
    ),
    Switch(
        "quicker",
        "Time taken first",
        "Another citizen books the time just before it is reserved.",
        (BOOKING,),
        ({"operation": "reserve", "action": "snatch"},),
    ),
    Switch(
        "busy",
        "Busy",
        "Answers 429 with Retry-After: 10 seconds. The whole lane waits.",
        (SUPPLIER,),
        ({"action": "status", "status": 429, "retry_after": "10"},),
    ),
    Switch(
        "refuses",
        "Refuses",
        "Answers 400: the report becomes a dead letter for an operator.",
        (SUPPLIER,),
        ({"action": "status", "status": 400, "fault": "ugyldig-besked"},),
    ),
    Switch(
        "locked",
        "Locked out",
        "Answers 401, as for an unknown credential: the lane is parked and an alert is raised.",
        (SUPPLIER,),
        ({"action": "status", "status": 401},),
    ),
)


def switches_for(kind: str) -> list[Switch]:
    """The switches of a kind of system."""
    return [switch for switch in SWITCHES if kind in switch.kinds]


def switch_named(kind: str, key: str) -> Switch:
    """The switch with this key. Raises Unknown if this kind of system does not have it."""
    for switch in switches_for(kind):
        if switch.key == key:
            return switch
    raise Unknown(key)


def which_is_on(is_up: bool, steps: Iterable[Mapping[str, Any]]) -> str | None:
    """The key of the switch that is on; None when the script has steps that no switch set."""
    if not is_up:
        return DOWN
    labels = {str(step.get("label") or "") for step in steps}
    if not labels:
        return WELL
    label = labels.pop()
    return label.removeprefix(LABEL) if not labels and label.startswith(LABEL) else None
