"""A citizen's pages, in Danish: choose who one is, see meetings, choose an offer, choose a time, book, move, cancel.

Each form carries the requestId of what it will ask, so sending it twice has one effect. What an answer means is told
by one page (answer.html). Errors are reported by report_pages.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import aiohttp_jinja2
from aiohttp import web

from sandbox.jobnet.citizens import CITIZENS, Citizen
from sandbox.jobnet.danish import heading
from sandbox.jobnet.request_store import Meeting, RequestStore, SentRequest, Unknown
from sandbox.jobnet.sandbox_client import SandboxClient

CITIZEN = "/borger/{citizen}"
MEETING = CITIZEN + "/moede/{invitation}"
# The two ways to a meeting: what the page is called, and the type of its booking.
WAYS = {
    "book": ("Book et møde", "booking.book.v1", False),
    "straks": ("Straksbooking", "booking.immediate.v1", True),
}


def citizen_of(request: web.Request) -> Citizen:
    """Whose page it is. Raises Unknown."""
    try:
        return CITIZENS[request.match_info["citizen"]]
    except KeyError:
        raise Unknown("citizen") from None


def page_of(request: web.Request, name: str, **told: Any) -> web.Response:
    """A page for the citizen in the address."""
    return aiohttp_jinja2.render_template(name, request, {"citizen": citizen_of(request), **told})


def wish_of(form: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen in the list of times. Raises web.HTTPBadRequest if it is nothing of the list."""
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
    """The pages, over what Jobnet remembers."""

    def __init__(self, store: RequestStore, sandbox_client: SandboxClient) -> None:
        self._requests = store
        self._sandbox = sandbox_client
        self._called_in: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        """Their addresses. No CPR number is ever part of one."""
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
            web.post(CITIZEN + "/svar/{request_id}", self._ask_again),
        ]

    async def _choose_citizen(self, request: web.Request) -> web.Response:
        places = self._sandbox.places
        here = [(c, places[c.jobcenter]) for c in CITIZENS.values() if c.jobcenter in places]
        return aiohttp_jinja2.render_template("citizens.html", request, {"citizen": None, "here": here})

    async def _meetings(self, request: web.Request) -> web.Response:
        citizen = citizen_of(request)
        if citizen.proposed and citizen.key not in self._called_in:
            self._called_in.add(citizen.key)
            if (meeting := await self._sandbox.call_in(citizen)) is not None:
                self._requests.remember(citizen, meeting)
        still_open = await self._requests.open_of(citizen)
        meetings = [(meeting, str(uuid4())) for meeting in self._requests.meetings(citizen)]
        place = self._sandbox.places[citizen.jobcenter]
        return page_of(request, "meetings.html", meetings=meetings, still_open=still_open, place=place)

    async def _offers(self, request: web.Request) -> web.Response:
        title, _, immediate = WAYS[request.match_info["way"]]
        asked = await self._requests.ask(citizen_of(request), "query.offers.v1", straksbooking=immediate)
        if asked.status != "done":
            return self._told(request, asked, title)
        offers = asked.answer["result"]["moedetilbud"]
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
        asked = await self._requests.ask(
            citizen_of(request), "query.times.v1", moedetilbudId=offer, straksbooking=immediate
        )
        if asked.status != "done":
            return self._told(request, asked, title)
        return page_of(
            request,
            "times.html",
            title=title,
            meeting=meeting,
            rows=asked.answer["result"]["tider"],
            request_id=str(uuid4()),
        )

    async def _book(self, request: web.Request) -> web.Response:
        type_ = WAYS[request.match_info["way"]][1]
        return await self._ask(
            request, type_, moedetilbudId=request.match_info["offer"], **await _wish(request)
        )

    async def _move(self, request: web.Request) -> web.Response:
        return await self._ask(request, "booking.rebook.v1", **_invitation(request), **await _wish(request))

    async def _accept(self, request: web.Request) -> web.Response:
        return await self._ask(request, "booking.accept.v1", **_invitation(request))

    async def _before_cancelling(self, request: web.Request) -> web.Response:
        return page_of(request, "cancel.html", meeting=self._meeting(request), request_id=str(uuid4()))

    async def _cancel(self, request: web.Request) -> web.Response:
        return await self._ask(request, "booking.cancel.v1", **_invitation(request))

    async def _ask(self, request: web.Request, type_: str, **fields: Any) -> web.Response:
        """Ask, then show the answer under an address of its own: reloading it sends nothing."""
        request_id = request_id_of(await request.post())
        asked = await self._requests.ask(citizen_of(request), type_, request_id, **fields)
        raise web.HTTPSeeOther(answer_address(asked))

    async def _answer(self, request: web.Request) -> web.Response:
        asked = await self._requests.asked(citizen_of(request), request.match_info["request_id"])
        return self._told(request, asked, heading(asked.type, asked.status))

    async def _ask_again(self, request: web.Request) -> web.Response:
        asked = await self._requests.asked(citizen_of(request), request.match_info["request_id"])
        raise web.HTTPSeeOther(answer_address(await self._requests.again(asked)))

    def _told(self, request: web.Request, asked: SentRequest, title: str) -> web.Response:
        # What only asked for something is asked anew by its own page; a booking must not be.
        again = request.path if asked.is_query else None
        return page_of(request, "answer.html", title=title, asked=asked, report_id=str(uuid4()), again=again)

    def _meeting(self, request: web.Request) -> Meeting:
        return self._requests.meeting(citizen_of(request), request.match_info["invitation"])


def answer_address(asked: SentRequest) -> str:
    """Where the answer to this request is shown."""
    return f"/borger/{asked.citizen.key}/svar/{asked.request_id}"


def _invitation(request: web.Request) -> dict[str, str]:
    return {"indkaldelseId": request.match_info["invitation"]}


async def _wish(request: web.Request) -> dict[str, Any]:
    return wish_of(await request.post())
