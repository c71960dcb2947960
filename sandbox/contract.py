"""Checks every call against the contract (docs/contract.md#calls).

The sentence about a breach contains no personal data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web

from sandbox.books import Wish, citizen_token
from sandbox.journal import Call
from sandbox.system_layout import THREE

URN = "urn:borgerbooking:fejl:"
FAULT_STATUS = {
    "ukendt-borger": 404,
    "ukendt-moedetilbud": 404,
    "ukendt-booking": 404,
    "ukendt-fejlkode": 400,
    "ulovligt-ophav": 400,
    "ugyldig-besked": 400,
    "tid-optaget": 409,
    "moedeform-ikke-mulig": 409,
    "ombooking-ikke-mulig": 409,
    "aflysning-ikke-mulig": 409,
    "reservation-udloebet": 409,
    "allerede-modtaget": 409,
}
# As STAR's pages define it: 29 February is valid in any year, replacement numbers are not valid.
CPR = re.compile(
    r"((((0[1-9]|1[0-9]|2[0-9]|3[0-1])(01|03|05|07|08|10|12))"
    r"|((0[1-9]|1[0-9]|2[0-9]|30)(04|06|09|11))|((0[1-9]|1[0-9]|2[0-9])(02)))[0-9]{6})|0000000000"
)
JOBCENTER = re.compile(r"[0-9]{5}")
REQUEST_ID = re.compile(r"[!-~]{1,46}")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class OperationRules:
    """What one operation requires of its requests.

    `body` returns a sentence for each problem of a body; None means that the operation has no body. `query` are the
    allowed query parameters, `needed` the required ones.
    """

    body: Callable[[dict[str, Any]], list[str]] | None = None
    query: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


async def read_call(
    request: web.Request, operation: str, rules: OperationRules, served: tuple[str, ...], now: datetime
) -> Call:
    """The call, with all its breaches of the contract. The server limits the size of the body."""
    body, problems = _body(await request.read(), request.content_type, rules)
    problems += header_problems(request, served) + _address(request, rules)
    offer = request.match_info.get("offer") or body.get("moedetilbudId") or ""
    invitation = request.match_info.get("invitation") or body.get("indkaldelseId") or ""
    return Call(
        operation,
        jobcenter=request.headers.get("x-activeOrganisation", ""),
        citizen=citizen_token(request.headers.get("x-civilregistrationIdentifier", "")),
        x_request_id=request.headers.get("x-requestId", ""),
        traceparent=request.headers.get("traceparent", ""),
        offer=str(offer),
        invitation=str(invitation),
        at=now,
        in_flight=0,
        body=body,
        problems=problems,
    )


def header_problems(request: web.Request, served: tuple[str, ...]) -> list[str]:
    """A sentence for each problem with the headers of the contract."""
    headers = request.headers
    problems = [
        f"header {name} is missing or breaks its pattern"
        for name, pattern in (
            ("x-civilregistrationIdentifier", CPR),
            ("x-requestId", REQUEST_ID),
            ("x-activeOrganisation", JOBCENTER),
        )
        if len(headers.getall(name, [])) != 1 or not pattern.fullmatch(headers[name])
    ]
    if "traceparent" in headers and not TRACEPARENT.fullmatch(headers["traceparent"]):
        problems.append("header traceparent breaks its pattern")
    if not problems and headers["x-activeOrganisation"] not in served:
        problems.append("header x-activeOrganisation names a jobcenter that this system does not serve")
    return problems


def _address(request: web.Request, rules: OperationRules) -> list[str]:
    problems = [f"query {name} is not in the contract" for name in request.query if name not in rules.query]
    problems += [f"query {name} is missing" for name in rules.needed if name not in request.query]
    problems += [
        f"query {name} is there twice" for name in set(request.query) if len(request.query.getall(name)) > 1
    ]
    cpr = request.headers.get("x-civilregistrationIdentifier", "")
    if cpr and cpr in request.raw_path:
        problems.append("the CPR number is in the address")
    problems += [
        f"path {name} is not a UUID" for name, text in request.match_info.items() if not is_uuid(text)
    ]
    return problems


def _body(raw: bytes, content_type: str, rules: OperationRules) -> tuple[dict[str, Any], list[str]]:
    if rules.body is None:
        return {}, ["a body where the contract has none"] if raw else []
    try:
        body = json.loads(raw)
    except ValueError:
        return {}, ["the body is not JSON"]
    if not isinstance(body, dict):
        return {}, ["the body is not a JSON object"]
    problems = [] if content_type == "application/json" else ["content-type is not application/json"]
    return body, problems + rules.body(body)


def wish_problems(body: dict[str, Any]) -> list[str]:
    """A sentence for each problem with the body of reserver and create."""
    known = {"moedetilbudId", "starttidspunkt", "moedeform", "sagsbehandlerId"}
    problems = unknown_fields(body, known)
    worker = body.get("sagsbehandlerId", "x")
    checks = {
        "moedetilbudId": "moedetilbudId" not in body or is_uuid(body["moedetilbudId"]),
        "starttidspunkt": instant(body.get("starttidspunkt")) is not None,
        "moedeform": body.get("moedeform") in THREE,
        "sagsbehandlerId": isinstance(worker, str) and 1 <= len(worker) <= 255,
    }
    return problems + failed_checks(checks)


def unknown_fields(body: dict[str, Any], known: Collection[str]) -> list[str]:
    """A sentence for each field that is not in the contract."""
    return [
        f"body has a field that is not in the contract: {name[:50]}" for name in body if name not in known
    ]


def failed_checks(checks: dict[str, bool]) -> list[str]:
    """A sentence for each field whose check failed."""
    return [f"body {name} is missing or breaks its format" for name, good in checks.items() if not good]


def wish_of(body: dict[str, Any]) -> Wish:
    """The wish in a body that wish_problems found valid."""
    at = instant(body["starttidspunkt"])
    assert at is not None  # noqa: S101 - checked by wish_problems
    offer = UUID(body["moedetilbudId"]) if "moedetilbudId" in body else None
    return Wish(offer, at, body["moedeform"], body.get("sagsbehandlerId"))


def is_uuid(text: Any) -> bool:
    """Whether it is a text of 8-4-4-4-12 hexadecimal digits, as STAR's pages define it."""
    return isinstance(text, str) and bool(
        re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text)
    )


def instant(text: Any) -> datetime | None:
    """The time in an ISO 8601 text with an offset, or None."""
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo is not None else None


def problem(fault: str, status: int | None = None) -> web.Response:
    """A response with a fault of docs/contract.md#faults as problem+json."""
    code = status or FAULT_STATUS[fault]
    body = {"type": URN + fault, "title": fault, "status": code}
    return web.json_response(body, status=code, content_type="application/problem+json")
