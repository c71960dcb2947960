"""An `Execution` on a real ledger without any external system: for what happens before a call leaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, cast
from uuid import UUID, uuid4

from broker.clients import Systems
from broker.ledger.ledger import Ledger
from broker.reports.enrichment import NOBODY
from broker.requests.execution import Execution
from broker.requests.routes import ROUTES, RoutedRequest
from broker.requests.verifier import Verifier
from config.directory import Jobcenter
from schemas.requests import REQUESTS
from tests.ledger.support import citizen, settings_for


class NoSystems:
    """Fails every test in which a call would leave."""

    def clients(self, *_: str) -> Any:
        raise AssertionError("nothing may be called")


def execution_on(ledger: Ledger, dsn: str) -> Execution:
    return Execution(settings_for(dsn), ledger, cast(Systems, NoSystems()), cast(Verifier, None))


def routed(type_: str = "booking.book.v1", *, within: float = 30.0, **changes: Any) -> RoutedRequest:
    """A valid request of a new citizen that is to be answered within so many seconds."""
    now = datetime.now(UTC)
    fields: dict[str, Any] = {"requestId": str(uuid4()), "sentAt": now.isoformat(), "cpr": citizen()}
    fields |= {"jobcenterkode": "90001"}
    if type_ == "report.citizen.v1":
        fields |= {"fejlkode": 4, "fejltekst": "Det virker ikke"}
    else:
        fields |= {"kontaktgruppe": "1", "moedetilbudId": str(UUID(int=7)), "moedeform": "telefonisk"}
        fields |= {"starttidspunkt": (now + timedelta(days=1)).isoformat()}
    return RoutedRequest(
        message=REQUESTS[type_].from_fields(fields),
        route=ROUTES[type_],
        jobcenter=Jobcenter(
            name="Jobcenter", planner="north-planner", booking_system="north", supplier="nordsoft"
        ),
        addressee=NOBODY,
        traceparent=changes.get("traceparent"),
        deadline_at=now + timedelta(seconds=within),
        answer_by=monotonic() + within,
        refusal=None,
    )
