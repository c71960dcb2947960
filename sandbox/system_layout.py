"""The layout of a sandbox: its systems, the jobcenters that they serve, and the meetings that can be booked.

All names, codes and ids are invented. Data only: nothing here listens or books.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

NAMESPACE = UUID("5d1f2b9c-7c0e-4a55-9f0a-2f6f0b6d5a10")
IN_PERSON, TELEPHONE, DIGITAL = "personligtFremmoede", "telefonisk", "digitalt"
THREE = (IN_PERSON, TELEPHONE, DIGITAL)
# Citizens of this contact group are offered no meetings.
GROUP_WITHOUT_OFFERS = "12"


def danish_time() -> tzinfo:
    """The time zone of Copenhagen, or its winter offset if the machine has no time zone data."""
    try:
        return ZoneInfo("Europe/Copenhagen")
    except ZoneInfoNotFoundError:
        return timezone(timedelta(hours=1))


@dataclass(frozen=True)
class OfferKind:
    """One kind of meeting that every jobcenter offers. The times of a day take the entries of `forms` in turn."""

    name: str
    forms: tuple[tuple[str, ...], ...]
    caseworkers: int
    times_a_day: int
    days: int
    immediate: bool = False
    conversation_type: int = 7


MIXED = (THREE, (IN_PERSON, TELEPHONE), (TELEPHONE,), (IN_PERSON, DIGITAL), (IN_PERSON,))
KINDS = (
    OfferKind("samtale", MIXED, caseworkers=3, times_a_day=12, days=10),
    OfferKind("tre-former", (THREE,), caseworkers=2, times_a_day=12, days=10, conversation_type=4),
    OfferKind("faa", (THREE, (IN_PERSON, DIGITAL), (TELEPHONE,)), caseworkers=1, times_a_day=3, days=1),
    OfferKind("fuld", (THREE,), caseworkers=1, times_a_day=0, days=1),
    OfferKind("straks", (THREE,), caseworkers=2, times_a_day=12, days=5, immediate=True),
    OfferKind("straks-fuld", (THREE,), caseworkers=1, times_a_day=0, days=1, immediate=True),
)
CASEWORKERS = ("Anna Lund", "Christian Holm", "Lars Bach", "Mette Krogh", "Sofie Dahl")


@dataclass(frozen=True)
class SystemPlan:
    """One system: its port (0: any free port) and its own limits in directory.toml."""

    port: int = 0
    limits: dict[str, float | int] = field(default_factory=dict)


CONTRACT, WEBHOOK = "contract", "webhook"


@dataclass(frozen=True)
class SupplierPlan:
    """One supplier: full name, format, port (0: any free port) and its other settings in directory.toml."""

    name: str
    format: str = CONTRACT
    port: int = 0
    limits: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobcenterPlan:
    """One jobcenter and the names of the systems that serve it."""

    name: str
    planner: str
    booking_system: str
    supplier: str


@dataclass(frozen=True)
class Layout:
    """All systems and jobcenters of a sandbox.

    `first_day` is the first day of every calendar; None means tomorrow. A supplier given as a name only has the
    format `contract`.
    """

    planners: dict[str, SystemPlan]
    booking_systems: dict[str, SystemPlan]
    suppliers: Mapping[str, str | SupplierPlan]
    jobcenters: dict[str, JobcenterPlan]
    kinds: tuple[OfferKind, ...] = KINDS
    first_day: date | None = None
    reservation_seconds: float = 60.0
    host: str = "127.0.0.1"
    desk_port: int = 0

    @property
    def starts_on(self) -> date:
        """The first day of every calendar."""
        return self.first_day or datetime.now(danish_time()).date() + timedelta(days=1)

    def served_by(self, system: str) -> tuple[str, ...]:
        """The codes of the jobcenters that a Planner, booking system or supplier serves."""
        return tuple(
            code for code, j in self.jobcenters.items() if system in (j.planner, j.booking_system, j.supplier)
        )

    @property
    def supplier_plans(self) -> dict[str, SupplierPlan]:
        """Every supplier with its plan."""
        return {
            name: SupplierPlan(plan) if isinstance(plan, str) else plan
            for name, plan in self.suppliers.items()
        }


def offer_id(jobcenter: str, kind: str) -> UUID:
    """The moedetilbudId of one kind of offer in one jobcenter, the same in every sandbox."""
    return uuid5(NAMESPACE, f"{jobcenter}/{kind}")


def slot_time(first_day: date, day: int, number: int) -> datetime:
    """The start of time `number` on calendar day `day` (both from 0): half hours from 08:00, Danish time."""
    at = datetime.combine(first_day + timedelta(days=day), time(8), danish_time())
    return at + timedelta(minutes=30 * number)


# The sample day has one booking system for each kind of fault (see make_day.py), so that faults do not disturb the
# healthy systems. No circuit breaker opens on these systems: where some calls fail and others succeed, the order of
# the calls would decide the outcome; where all fail, a failure would be the broker's own limit, which is not reported.
_NO_BREAKER = SystemPlan(limits={"breaker_failures": 1000})
_DEFAULT_SYSTEMS = {
    "birk": SystemPlan(),
    "lind": SystemPlan(),
    "pil": _NO_BREAKER,
    "hassel": _NO_BREAKER,
    "tjoern": _NO_BREAKER,
    "roen": _NO_BREAKER,
}
_PLACES = {
    "90001": ("Askeby", "nordlys", "birk", "fyrtaarn"),
    "90002": ("Birkholm", "nordlys", "birk", "fyrtaarn"),
    "90003": ("Dyrlund", "nordlys", "birk", "fyrtaarn"),
    "90004": ("Elverdam", "havblik", "birk", "moelle"),
    "90005": ("Fuglsang", "havblik", "lind", "moelle"),
    "90006": ("Gransoe", "havblik", "lind", "moelle"),
    "90007": ("Hjortevang", "nordlys", "lind", "moelle"),
    "90008": ("Isefjord", "nordlys", "lind", "moelle"),
    "90009": ("Kildemose", "nordlys", "pil", "havn"),
    "90010": ("Lyngbakke", "havblik", "hassel", "havn"),
    "90011": ("Mosedal", "havblik", "tjoern", "bro"),
    "90012": ("Nordstrand", "havblik", "roen", "bro"),
    "90013": ("Odderbaek", "havblik", "roen", "moelle"),
    "90014": ("Praestoe", "havblik", "roen", "fyrtaarn"),
}
# Fyrtaarn also wants reports of missing times and offers (fejlkode 2 and 3); the others want only fejlkode 4.
_SUPPLIERS = {
    "fyrtaarn": SupplierPlan("Fyrtaarn Data", limits={"report_codes": (2, 3, 4)}),
    "moelle": SupplierPlan("Moelle IT", WEBHOOK),
    "havn": SupplierPlan("Havn Systemer"),
    "bro": SupplierPlan("Bro Software"),
}


def default_layout() -> Layout:
    """Two Planners, six booking systems, four suppliers, fourteen jobcenters; every port is a free one."""
    return Layout(
        planners={"nordlys": SystemPlan(), "havblik": _NO_BREAKER},
        booking_systems=dict(_DEFAULT_SYSTEMS),
        suppliers=dict(_SUPPLIERS),
        jobcenters={c: JobcenterPlan(f"Jobcenter {name}", *rest) for c, (name, *rest) in _PLACES.items()},
    )


def load_layout(path: Path) -> Layout:
    """Read a layout from TOML: the tables planners, booking_systems, suppliers and jobcenters, and top-level fields.

    Raises KeyError, TypeError or tomllib.TOMLDecodeError when the file is not a layout.
    """
    raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    tables: dict[str, Any] = {
        "planners": {n: SystemPlan(**t) for n, t in raw.pop("planners").items()},
        "booking_systems": {n: SystemPlan(**t) for n, t in raw.pop("booking_systems").items()},
        "suppliers": {n: SupplierPlan(**t) for n, t in raw.pop("suppliers").items()},
        "jobcenters": {c: JobcenterPlan(**t) for c, t in raw.pop("jobcenters").items()},
    }
    return Layout(**tables, **raw)
