"""The Danish texts of the Jobnet page: dates, mødeformer, and a heading for each status of an answer.

The sentences of an answer come from the broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sandbox.system_layout import DIGITAL, IN_PERSON, TELEPHONE, danish_time

FORMS = {IN_PERSON: "Personligt fremmøde", TELEPHONE: "Telefonisk", DIGITAL: "Digitalt møde"}
_MONTHS = ("jan.", "feb.", "mar.", "apr.", "maj", "jun.", "jul.", "aug.", "sep.", "okt.", "nov.", "dec.")
NO_ANSWER = (
    "Vi har ikke fået svar endnu og ved ikke, om det lykkedes. Spørg igen om lidt: "
    "den samme anmodning bliver kun udført én gang."
)
_DONE = {
    "booking.book.v1": "Dit møde er booket",
    "booking.immediate.v1": "Dit møde er booket",
    "booking.rebook.v1": "Dit møde er flyttet",
    "booking.accept.v1": "Du har sagt ja til mødet",
    "booking.cancel.v1": "Dit møde er aflyst",
    "report.citizen.v1": "Indmeld booking-fejl",
}
_NOT_DONE = {
    "refused": "Det kunne ikke lade sig gøre",
    "failed": "Det lykkedes ikke",
    "expired": "Det tog for lang tid",
    "uncertain": "Vi ved endnu ikke, om det lykkedes",
    "no-answer": "Vi ved endnu ikke, om det lykkedes",
}


def when(instant: str) -> str:
    """A time in Danish: 19. nov. 2026, 13:00."""
    at = datetime.fromisoformat(instant).astimezone(danish_time())
    return f"{at.day}. {_MONTHS[at.month - 1]} {at.year}, {at:%H:%M}"


def form(name: str) -> str:
    """A mødeform in Danish; an unknown one unchanged."""
    return FORMS.get(name, name)


def row(time: Mapping[str, Any]) -> str:
    """One line of the list of times: date, time, caseworker, mødeform (release note 3.1)."""
    caseworker = time["sagsbehandler"].get("navn") or "Sagsbehandler"
    return f"{when(time['starttidspunkt'])} · {caseworker} · {form(time['moedeform'])}"


def heading(type_: str, status: str) -> str:
    """The title of the page with the answer to a request."""
    return _DONE.get(type_, "Færdig") if status == "done" else _NOT_DONE.get(status, status)
