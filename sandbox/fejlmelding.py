"""Checks and reads failure reports in both formats: docs/contract.md#fejlmelding and docs/contract.md#webhook.

The sentence about a breach contains no personal data. inbox.py stores the reports.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from sandbox.books import citizen_token
from sandbox.contract import CPR, JOBCENTER, TRACEPARENT, failed_checks, instant, is_uuid, unknown_fields
from sandbox.journal import Call

JOBNET = {"id": 32, "navn": "Jobnet"}
CODES = (2, 3, 4)
LONGEST_TEXT = 500
CONTRACT_FIELDS = {"moedetilbudId", "indkaldelseId", "fejlkode", "fejltekst", "fejlOphav", "fejlTidspunkt"}
WEBHOOK_FIELDS = CONTRACT_FIELDS | {
    "reportId",
    "kind",
    "cpr",
    "jobcenterkode",
    "requestId",
    "requestType",
    "antal",
}
KINDS = ("automatic", "citizen")
SIGNATURE = "the signature does not verify"
# Line breaks are the only control characters that a fejltekst may contain.
_CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def report_problems(body: dict[str, Any]) -> list[str]:
    """A sentence for each problem with the body of a Fejlmelding."""
    return unknown_fields(body, CONTRACT_FIELDS) + failed_checks(_common(body))


def webhook_problems(body: dict[str, Any]) -> list[str]:
    """A sentence for each problem with the body of a signed webhook."""
    count = body.get("antal")
    checks = {
        "reportId": is_uuid(body.get("reportId")),
        "kind": body.get("kind") in KINDS,
        "cpr": isinstance(body.get("cpr"), str) and bool(CPR.fullmatch(body["cpr"])),
        "jobcenterkode": isinstance(body.get("jobcenterkode"), str)
        and bool(JOBCENTER.fullmatch(body["jobcenterkode"])),
        "requestId": "requestId" not in body or is_uuid(body["requestId"]),
        "requestType": "requestType" not in body or isinstance(body["requestType"], str),
        "antal": type(count) is int and count >= 1,
    }
    return unknown_fields(body, WEBHOOK_FIELDS) + failed_checks(_common(body) | checks)


def _common(body: dict[str, Any]) -> dict[str, bool]:
    return {
        "moedetilbudId": "moedetilbudId" not in body or is_uuid(body["moedetilbudId"]),
        "indkaldelseId": "indkaldelseId" not in body or is_uuid(body["indkaldelseId"]),
        "fejlkode": type(body.get("fejlkode")) is int and body["fejlkode"] in CODES,
        "fejltekst": _is_text(body.get("fejltekst")),
        "fejlOphav": body.get("fejlOphav") == JOBNET,
        "fejlTidspunkt": instant(body.get("fejlTidspunkt")) is not None,
    }


def _is_text(text: Any) -> bool:
    return isinstance(text, str) and 1 <= len(text) <= LONGEST_TEXT and not _CONTROL.search(text)


def signature_problems(raw: bytes, headers: dict[str, str], secrets: Iterable[str]) -> list[str]:
    """Verify the signature with the standardwebhooks library. One secret that verifies is enough."""
    for secret in secrets:
        try:
            Webhook(secret).verify(raw, headers, json_parse=False)
        except (WebhookVerificationError, ValueError):
            continue
        return []
    return [SIGNATURE]


async def read_webhook(
    request: web.Request, secrets: Iterable[str], served: tuple[str, ...], now: datetime
) -> Call:
    """The call, with all its breaches of the contract. The server limits the size of the body."""
    raw, headers = await request.read(), dict(request.headers)
    problems = signature_problems(raw, headers, secrets)
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if isinstance(body, dict):
        problems += webhook_problems(body) + _header_problems(request, body, served)
    else:
        problems.append("the body is not a JSON object")
        body = {}
    return Call(
        "report",
        jobcenter=str(body.get("jobcenterkode", "")),
        citizen=citizen_token(str(body.get("cpr", ""))),
        x_request_id=request.headers.get("x-requestId", ""),
        traceparent=request.headers.get("traceparent", ""),
        offer=str(body.get("moedetilbudId", "")),
        invitation=str(body.get("indkaldelseId", "")),
        at=now,
        in_flight=0,
        body=body,
        problems=problems,
    )


def _header_problems(request: web.Request, body: dict[str, Any], served: tuple[str, ...]) -> list[str]:
    headers, cpr = request.headers, str(body.get("cpr", ""))
    checks = (
        ("content-type is not application/json", request.content_type == "application/json"),
        ("header webhook-id is not the reportId", headers.get("webhook-id") == body.get("reportId")),
        (
            "jobcenterkode is of a jobcenter that this supplier does not serve",
            body.get("jobcenterkode") in served,
        ),
        (
            "header traceparent breaks its pattern",
            bool(TRACEPARENT.fullmatch(headers.get("traceparent", _ANY_TRACE))),
        ),
        ("the address has a query", not request.query_string),
        ("the CPR number is in a header", not cpr or not any(cpr in value for value in headers.values())),
    )
    return [sentence for sentence, good in checks if not good]


_ANY_TRACE = f"00-{'0' * 32}-{'0' * 16}-00"
