"""Indmeld booking-fejl (release note 3.2): the form about one failed request, its problems, and the receipt.

The form is a page and, with JavaScript, the content of a dialog.
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

MAX_LENGTH = 500
OTHER_PROBLEM = 4
EMPTY = "Skriv, hvad du oplevede, før du indmelder fejlen."
# The broker allows no control characters but line breaks. Pasted text may contain others; they become spaces.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def normalized(text: str) -> str:
    """The text as it is sent and counted: in NFC, a line break as one character."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _CONTROL.sub(" ", lines))


def problem_of(text: str) -> str | None:
    """The problem with a text, or None."""
    if not text.strip():
        return EMPTY
    if len(text) > MAX_LENGTH:
        over = len(text) - MAX_LENGTH
        return f"Teksten er {over} tegn for lang. Der er plads til {MAX_LENGTH} tegn."
    return None


class ReportPages:
    """The form and the receipt."""

    def __init__(self, store: RequestStore) -> None:
        self._requests = store

    def routes(self) -> list[web.RouteDef]:
        """The routes: one address for each failed request."""
        return [
            web.get(CITIZEN + "/fejl/{request_id}", self._form),
            web.post(CITIZEN + "/fejl/{request_id}", self._send),
        ]

    async def _form(self, request: web.Request) -> web.Response:
        return self._page(request, await self._failed(request), str(uuid4()))

    async def _send(self, request: web.Request) -> web.Response:
        failed, form = await self._failed(request), await request.post()
        report_id, text = request_id_of(form), normalized(str(form.get("fejltekst", "")))
        if problem := problem_of(text):
            return self._page(request, failed, report_id, text, problem)
        sent = await self._requests.send(failed.citizen, REPORT, report_id, fejltekst=text, **_about(failed))
        if sent.status == "done":
            return page_of(request, "receipt.html", receipt=sent.answer["result"]["text"])
        return self._page(request, failed, report_id, text, _problem_of_answer(sent.answer))

    async def _failed(self, request: web.Request) -> SentRequest:
        return await self._requests.find(citizen_of(request), request.match_info["request_id"])

    def _page(
        self,
        request: web.Request,
        failed: SentRequest,
        report_id: str,
        text: str = "",
        problem: str | None = None,
    ) -> web.Response:
        return page_of(request, "report.html", sent=failed, report_id=report_id, text=text, problem=problem)


def _about(failed: SentRequest) -> dict[str, Any]:
    """The report's fields beside the text. The broker completes it from the failed request (R14)."""
    return {
        "fejlkode": failed.answer.get("fejlkode", OTHER_PROBLEM),
        "straksbooking": failed.is_immediate,
        "failedRequestId": failed.request_id,
        "moedetilbudId": failed.fields.get("moedetilbudId"),
        "indkaldelseId": failed.fields.get("indkaldelseId"),
    }


def _problem_of_answer(answer: Mapping[str, Any]) -> str:
    """The reason why there is no receipt. The form keeps its requestId, so submitting it again is a repeat."""
    return str(answer.get("text") or NO_ANSWER)
