"""A stand-in booking system: the paths of the contract (docs/contract.md#calls) over Books.

It books, moves and cancels meetings, and its reservations expire.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiohttp import web

from sandbox.books import Books, CallContext, Meeting, Refusal, Slot, Wish, citizen_token, slots_of
from sandbox.contract import OperationRules, instant, is_uuid, wish_of, wish_problems
from sandbox.journal import Call
from sandbox.scripting import BadStep, Step
from sandbox.system import System
from sandbox.system_layout import Layout, offer_id

BOOKING = "/v1/BorgerBooking/Booking/{invitation}"
SEED_FIELDS = {
    "jobcenter",
    "kind",
    "invitation",
    "cpr",
    "starts_at",
    "form",
    "caseworker_id",
    "accepted",
    "can_rebook",
    "can_cancel",
    "rebook_by",
    "cancel_by",
}


class BookingServer(System):
    """One booking system and its meetings."""

    def __init__(self, name: str, layout: Layout) -> None:
        super().__init__(
            name, layout.served_by(name), host=layout.host, port=layout.booking_systems[name].port
        )
        self.book = Books(_calendars(layout, self.served), layout.reservation_seconds)

    def routes(self) -> list[web.RouteDef]:
        """The contract's paths of a booking system."""
        wish = OperationRules(body=wish_problems)
        return [
            web.get("/v1/BorgerBooking/Moedetilbud/{offer}/Tider", self._serve_times),
            web.get(BOOKING, self.handler("find", OperationRules(), self._find)),
            web.post(BOOKING + "/action/reserver", self.handler("reserve", wish, self._reserve)),
            web.post(BOOKING, self.handler("create", wish, self._create)),
            web.post(BOOKING + "/action/accepter", self.handler("accept", OperationRules(), self._accept)),
            web.delete(BOOKING, self.handler("cancel", OperationRules(), self._cancel)),
        ]

    async def _serve_times(self, request: web.Request) -> web.StreamResponse:
        rules = OperationRules(query=("fra", "til", "sagsbehandlerId"))
        query = dict(request.query)
        return await self.handler("times", rules, lambda call: self._times(call, query))(request)

    def _times(self, call: Call, query: dict[str, str]) -> web.Response:
        bounds: dict[str, datetime | None] = {n: instant(query[n]) for n in ("fra", "til") if n in query}
        if None in bounds.values():
            self.journal.breach("times: query fra or til is not a time with an offset")
            raise Refusal("ugyldig-besked")
        worker = query.get("sagsbehandlerId")
        free = self.book.times(UUID(call.offer), call.citizen, call.at)
        found = [s for s in free if worker in (None, s.caseworker_id) and _inside(s.starts_at, bounds)]
        return web.json_response(
            {"tider": [_time(slot) for slot in found if slot.jobcenter == call.jobcenter]}
        )

    def _find(self, call: Call) -> web.Response:
        return web.json_response(_booking(self.book.find(UUID(call.invitation), call.citizen)))

    def _reserve(self, call: Call) -> web.Response:
        until = self.book.reserve(_context(call), wish_of(call.body))
        return web.json_response({"reserveretTil": until.isoformat()})

    def _create(self, call: Call) -> web.Response:
        return web.json_response(_booking(self.book.create(_context(call), wish_of(call.body))), status=201)

    def _accept(self, call: Call) -> web.Response:
        return web.json_response(_booking(self.book.accept(_context(call))))

    def _cancel(self, call: Call) -> web.Response:
        self.book.cancel(_context(call))
        return web.Response(status=204)

    def before_work(self, step: Step, call: Call) -> None:
        """The action `snatch`: another citizen books the time first."""
        if step.action == "snatch" and not call.problems and call.body:
            with contextlib.suppress(Refusal):
                self.book.snatch(_context(call), wish_of(call.body))

    def reset(self) -> None:
        """Return to the state after a start."""
        super().reset()
        self.book.clear()

    def books(self) -> dict[str, Any]:
        """The meetings, the log of all changes, and the errors found in it (`disagreements`)."""
        return self.book.snapshot()

    def seed(self, body: dict[str, Any]) -> None:
        """Insert a meeting that existed before the test; `body` has SEED_FIELDS. Raises BadStep, Refusal."""
        unknown = sorted(set(body) - SEED_FIELDS)
        at = instant(body.get("starts_at"))
        if unknown or at is None or not is_uuid(body.get("invitation")):
            raise BadStep(f"a seed needs starts_at and invitation; unknown fields: {unknown}")
        wish = Wish(offer_id(body["jobcenter"], body["kind"]), at, body["form"], body.get("caseworker_id"))
        context = CallContext(UUID(body["invitation"]), citizen_token(body["cpr"]), datetime.now(UTC), "seed")
        meeting = self.book.seed(context, wish)
        meeting.accepted = body.get("accepted", True)
        for name in ("rebook", "cancel"):
            if not body.get(f"can_{name}", True):
                setattr(meeting, f"{name}_by", None)
            elif f"{name}_by" in body:
                setattr(meeting, f"{name}_by", instant(body[f"{name}_by"]))


def _calendars(layout: Layout, served: tuple[str, ...]) -> dict[UUID, list[Slot]]:
    day = layout.starts_on
    return {offer_id(code, kind.name): slots_of(code, kind, day) for code in served for kind in layout.kinds}


def _context(call: Call) -> CallContext:
    return CallContext(UUID(call.invitation), call.citizen, datetime.now(UTC), call.x_request_id)


def _inside(at: datetime, bounds: dict[str, datetime | None]) -> bool:
    low, high = bounds.get("fra"), bounds.get("til")
    return (low is None or at >= low) and (high is None or at < high)


def _time(slot: Slot) -> dict[str, Any]:
    return {
        "starttidspunkt": slot.starts_at.isoformat(),
        "sluttidspunkt": slot.ends_at.isoformat(),
        "sagsbehandler": {"id": slot.caseworker_id, "navn": slot.caseworker},
        "moedeformer": list(slot.forms),
    }


def _booking(meeting: Meeting) -> dict[str, Any]:
    times = _time(meeting.slot)
    del times["moedeformer"]
    fields = {
        "indkaldelseId": str(meeting.invitation),
        "moedetilbudId": str(meeting.slot.offer),
        "moedeform": meeting.form,
        "accepteret": meeting.accepted,
        "kanOmbookes": meeting.rebook_by is not None,
        "kanAflyses": meeting.cancel_by is not None,
    }
    deadlines = {"ombookingsfrist": meeting.rebook_by, "aflysningsfrist": meeting.cancel_by}
    return times | fields | {name: at.isoformat() for name, at in deadlines.items() if at is not None}
