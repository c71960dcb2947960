"""Indmeld booking-fejl (release note 3.2): the form about one failed request, what is wrong with it, and the receipt.

The same page serves as a page of its own and, with JavaScript, as the content of a pop-up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from aiohttp import web

from sandbox.jobnet.citizen_pages import CITIZEN, citizen_of, page_of, request_id_of
from sandbox.jobnet.danish import NO_ANSWER
from sandbox.jobnet.request_store import REPORT, RequestStore, SentRequest

LONGEST = 500
OTHER_PROBLEM = 4
EMPTY = "Skriv, hvad du oplevede, før du indmelder fejlen."
# The broker takes line breaks and no other control characters; what a paste brings along is no reason to say no.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def written(text: str) -> str:
    """The citizen's words as they are sent and counted: NFC, a line break as one character."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _CONTROL.sub(" ", lines))


def problem_of(text: str) -> str | None:
    """What is wrong with such words, or None."""
    if not text.strip():
        return EMPTY
    if len(text) > LONGEST:
        over = len(text) - LONGEST
        return f"Teksten er {over} tegn for lang. Der er plads til {LONGEST} tegn."
    return None


class ReportPages:
    """The form and the receipt."""

    def __init__(self, store: RequestStore) -> None:
        self._requests = store

    def routes(self) -> list[web.RouteDef]:
        """One address for each request that failed."""
        return [
            web.get(CITIZEN + "/fejl/{request_id}", self._form),
            web.post(CITIZEN + "/fejl/{request_id}", self._send),
        ]

    async def _form(self, request: web.Request) -> web.Response:
        return self._page(request, await self._failed(request), str(uuid4()))

    async def _send(self, request: web.Request) -> web.Response:
        failed, form = await self._failed(request), await request.post()
        report_id, text = request_id_of(form), written(str(form.get("fejltekst", "")))
        if problem := problem_of(text):
            return self._page(request, failed, report_id, text, problem)
        asked = await self._requests.ask(failed.citizen, REPORT, report_id, fejltekst=text, **_about(failed))
        if asked.status == "done":
            return page_of(request, "receipt.html", receipt=asked.answer["result"]["text"])
        return self._page(request, failed, report_id, text, _no(asked.answer))

    async def _failed(self, request: web.Request) -> SentRequest:
        return await self._requests.asked(citizen_of(request), request.match_info["request_id"])

    def _page(
        self,
        request: web.Request,
        failed: SentRequest,
        report_id: str,
        text: str = "",
        problem: str | None = None,
    ) -> web.Response:
        return page_of(request, "report.html", asked=failed, report_id=report_id, text=text, problem=problem)


def _about(failed: SentRequest) -> dict[str, Any]:
    """What the report tells beside the citizen's words; the broker knows the rest by the failed requestId."""
    return {
        "fejlkode": failed.answer.get("fejlkode", OTHER_PROBLEM),
        "straksbooking": failed.is_immediate,
        "failedRequestId": failed.request_id,
        "moedetilbudId": failed.fields.get("moedetilbudId"),
        "indkaldelseId": failed.fields.get("indkaldelseId"),
    }


def _no(answer: Mapping[str, Any]) -> str:
    """Why there is no receipt. The form keeps its requestId: sent again, it is the same report."""
    return str(answer.get("text") or NO_ANSWER)
