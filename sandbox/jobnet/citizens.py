"""The invented citizens of the Jobnet page. No person has these names together with these CPR numbers.

Each belongs to a jobcenter of the built-in layout. A citizen whose jobcenter is not in the sandbox is not shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.samples import invented_cpr
from sandbox.system_layout import GROUP_WITHOUT_OFFERS

# Far above the numbers of the citizens of the sample day.
FIRST = 2_000_000


@dataclass(frozen=True)
class Citizen:
    """One citizen. `proposed`: the jobcenter has invited the citizen to a meeting that is not accepted yet."""

    key: str
    name: str
    cpr: str = field(repr=False)
    jobcenter: str
    group: str | None
    proposed: bool = False


_PEOPLE = (
    ("asta", "Asta Lyngmark", "90001", "2", True),
    ("viggo", "Viggo Strandhauge", "90002", None, False),
    ("ellen", "Ellen Kornager", "90005", "2", False),
    ("malthe", "Malthe Bregnedal", "90006", GROUP_WITHOUT_OFFERS, False),
    ("liv", "Liv Tangmose", "90007", None, True),
    ("karla", "Karla Egeskjold", "90009", "1", False),
    ("oskar", "Oskar Havgaard", "90011", "4", False),
)
CITIZENS = {
    key: Citizen(key, name, invented_cpr(FIRST + number), jobcenter, group, proposed)
    for number, (key, name, jobcenter, group, proposed) in enumerate(_PEOPLE)
}
