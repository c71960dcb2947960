"""The citizens' pages, in Danish: choose a citizen, see meetings, choose an offer and a time, book, move, cancel.

Each form contains the requestId of its request, so submitting it twice has one effect. One page (answer.html) shows
every answer. report_pages.py has the form for reporting an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import aiohttp_jinja2
from aiohttp import web

from sandbox.jobnet.citizens import CITIZENS, Citizen
from sandbox.jobnet.danish import FORMS, heading
from sandbox.jobnet.request_store import Meeting, RequestStore, SentRequest, Unknown
from sandbox.jobnet.sandbox_client import SandboxClient

CITIZEN = "/borger/{citizen}"
MEETING = CITIZEN + "/moede/{invitation}"
# The two ways to book: title of the page, type of the request, whether it is straksbooking.
WAYS = {
    "book": ("Book et møde", "booking.book.v1", False),
    "straks": ("Straksbooking", "booking.immediate.v1", True),
}


def citizen_of(request: web.Request) -> Citizen:
    """The citizen in the address. Raises Unknown."""
    try:
        return CITIZENS[request.match_info["citizen"]]
    except KeyError:
        raise Unknown("citizen") from None


def page_of(request: web.Request, name: str, **values: Any) -> web.Response:
    """A page for the citizen in the address, rendered from the template `name`."""
    return aiohttp_jinja2.render_template(name, request, {"citizen": citizen_of(request), **values})


def wish_of(form: Mapping[str, Any]) -> dict[str, Any]:
    """The time chosen in a form. Raises web.HTTPBadRequest if there is none."""
    start, _, rest = str(form.get("tid", "")).partition("|")
    moedeform, _, caseworker = rest.partition("|")
    if not (start and moedeform):
        raise web.HTTPBadRequest(text="Vælg en tid.")
    return {"starttidspunkt": start, "moedeform": moedeform, "sagsbehandlerId": caseworker or None}


def request_id_of(form: Mapping[str, Any]) -> str:
    """The requestId in a form. Raises web.HTTPBadRequest if it has none."""
    try:
        return str(UUID(str(form.get("requestId", ""))))
    except ValueError:
        raise web.HTTPBadRequest(text="Formularen er ikke hel. Hent siden igen.") from None


class CitizenPages:
    """The pages and their routes."""

    def __init__(self, store: RequestStore, sandbox_client: SandboxClient) -> None:
        self._requests = store
        self._sandbox = sandbox_client
        self._invited: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        """The routes. No address contains a CPR number."""
        return [
            web.get("/", self._choose_citizen),
            web.get(CITIZEN, self._meetings),
            web.get(CITIZEN + "/{way:book|straks}", self._offers),
            web.get(CITIZEN + "/{way:book|straks}/{offer}", self._times),
            web.post(CITIZEN + "/{way:book|straks}/{offer}", self._book),
            web.get(MEETING + "/flyt", self._times_to_move),
            web.post(MEETING + "/flyt", self._move),
            web.post(MEETING + "/accept", self._accept),
            web.get(MEETING + "/aflys", self._before_cancelling),
            web.post(MEETING + "/aflys", self._cancel),
            web.get(CITIZEN + "/svar/{request_id}", self._answer),
            web.post(CITIZEN + "/svar/{request_id}", self._resend),
        ]

    async def _choose_citizen(self, request: web.Request) -> web.Response:
        jobcenters = self._sandbox.jobcenters
        citizens = [(c, jobcenters[c.jobcenter]) for c in CITIZENS.values() if c.jobcenter in jobcenters]
        return aiohttp_jinja2.render_template(
            "citizens.html", request, {"citizen": None, "citizens": citizens}
        )

    async def _meetings(self, request: web.Request) -> web.Response:
        citizen = citizen_of(request)
        if citizen.proposed and citizen.key not in self._invited:
            self._invited.add(citizen.key)
            if (meeting := await self._sandbox.invite(citizen)) is not None:
                self._requests.remember_meeting(citizen, meeting)
        open_requests = await self._requests.open_requests(citizen)
        meetings = [(meeting, str(uuid4())) for meeting in self._requests.meetings(citizen)]
        jobcenter = self._sandbox.jobcenters[citizen.jobcenter]
        return page_of(
            request, "meetings.html", meetings=meetings, open_requests=open_requests, jobcenter=jobcenter
        )

    async def _offers(self, request: web.Request) -> web.Response:
        title, _, immediate = WAYS[request.match_info["way"]]
        sent = await self._requests.send(citizen_of(request), "query.offers.v1", straksbooking=immediate)
        if sent.status != "done":
            return self._answer_page(request, sent, title)
        offers = sent.answer["result"]["moedetilbud"]
        return page_of(request, "offers.html", title=title, way=request.match_info["way"], offers=offers)

    async def _times(self, request: web.Request) -> web.Response:
        title, _, immediate = WAYS[request.match_info["way"]]
        return await self._choose_time(request, title, request.match_info["offer"], immediate)

    async def _times_to_move(self, request: web.Request) -> web.Response:
        meeting = self._meeting(request)
        return await self._choose_time(request, "Flyt mødet", meeting["moedetilbudId"], False, meeting)

    async def _choose_time(
        self, request: web.Request, title: str, offer: str, immediate: bool, meeting: Meeting | None = None
    ) -> web.Response:
        # Ordinary booking may choose a mødeform and read on; straksbooking sees one list.
        wanted = (
            {} if immediate else {n: request.query[n] for n in ("moedeform", "side") if n in request.query}
        )
        sent = await self._requests.send(
            citizen_of(request), "query.times.v1", moedetilbudId=offer, straksbooking=immediate, **wanted
        )
        if sent.status != "done":
            return self._answer_page(request, sent, title)
        return page_of(
            request,
            "times.html",
            title=title,
            meeting=meeting,
            rows=sent.answer["result"]["tider"],
            forms=() if immediate else tuple(FORMS),
            chosen_form=wanted.get("moedeform"),
            next_page=sent.answer["result"].get("naesteSide"),
            request_id=str(uuid4()),
        )

    async def _book(self, request: web.Request) -> web.Response:
        type_ = WAYS[request.match_info["way"]][1]
        return await self._send(
            request, type_, moedetilbudId=request.match_info["offer"], **await _wish(request)
        )

    async def _move(self, request: web.Request) -> web.Response:
        return await self._send(request, "booking.rebook.v1", **_invitation(request), **await _wish(request))

    async def _accept(self, request: web.Request) -> web.Response:
        return await self._send(request, "booking.accept.v1", **_invitation(request))

    async def _before_cancelling(self, request: web.Request) -> web.Response:
        return page_of(request, "cancel.html", meeting=self._meeting(request), request_id=str(uuid4()))

    async def _cancel(self, request: web.Request) -> web.Response:
        return await self._send(request, "booking.cancel.v1", **_invitation(request))

    async def _send(self, request: web.Request, type_: str, **fields: Any) -> web.Response:
        """Send the request, then redirect to the answer's own address, so that reloading sends nothing."""
        request_id = request_id_of(await request.post())
        sent = await self._requests.send(citizen_of(request), type_, request_id, **fields)
        raise web.HTTPSeeOther(answer_address(sent))

    async def _answer(self, request: web.Request) -> web.Response:
        sent = await self._requests.find(citizen_of(request), request.match_info["request_id"])
        return self._answer_page(request, sent, heading(sent.type, sent.status))

    async def _resend(self, request: web.Request) -> web.Response:
        sent = await self._requests.find(citizen_of(request), request.match_info["request_id"])
        raise web.HTTPSeeOther(answer_address(await self._requests.resend(sent)))

    def _answer_page(self, request: web.Request, sent: SentRequest, title: str) -> web.Response:
        # A query is repeated by loading its own page again; a booking must not be sent as a new request.
        repeat_address = request.path if sent.is_query else None
        return page_of(
            request,
            "answer.html",
            title=title,
            sent=sent,
            report_id=str(uuid4()),
            repeat_address=repeat_address,
        )

    def _meeting(self, request: web.Request) -> Meeting:
        return self._requests.meeting(citizen_of(request), request.match_info["invitation"])


def answer_address(sent: SentRequest) -> str:
    """The address of the page with the answer to this request."""
    return f"/borger/{sent.citizen.key}/svar/{sent.request_id}"


def _invitation(request: web.Request) -> dict[str, str]:
    return {"indkaldelseId": request.match_info["invitation"]}


async def _wish(request: web.Request) -> dict[str, Any]:
    return wish_of(await request.post())
