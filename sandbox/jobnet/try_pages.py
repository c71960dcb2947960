"""The sandbox pages, in English: switches that make the sandbox's systems fail, and the suppliers' inboxes.

They act through the sandbox's desk only, not through the broker.
"""

from __future__ import annotations

from typing import Any

import aiohttp_jinja2
from aiohttp import web

from sandbox.jobnet.inboxes import cpr_of, refused_calls, shown_reports
from sandbox.jobnet.request_store import Unknown
from sandbox.jobnet.sandbox_client import SandboxClient
from sandbox.jobnet.switches import ALL_KINDS, DOWN, SUPPLIER, Switch, switch_named, switches_for, which_is_on

TITLES = {
    "planner": "Planner systems",
    "booking system": "Booking systems",
    "supplier": "Suppliers, who get the failure reports",
}


class TryPages:
    """The pages and their routes."""

    def __init__(self, sandbox_client: SandboxClient) -> None:
        self._sandbox = sandbox_client
        self._desk = sandbox_client.desk

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get("/sandbox", self._switches),
            web.post("/sandbox/{system}", self._switch),
            web.get("/sandbox/{supplier}/inbox", self._inbox),
            web.post("/sandbox/{supplier}/inbox", self._show_cpr),
        ]

    async def _switches(self, request: web.Request) -> web.Response:
        groups = [
            (TITLES[kind], [await self._card(name, kind) for name in self._sandbox.of_kind(kind)])
            for kind in reversed(ALL_KINDS)
        ]
        return aiohttp_jinja2.render_template("switches.html", request, {"groups": groups})

    async def _card(self, name: str, kind: str) -> dict[str, Any]:
        mode = await self._desk.get(name, "mode")
        steps = await self._desk.get(name, "script")
        jobcenters = self._sandbox.jobcenters
        serves = [jobcenters[code].name for code in self._sandbox.system(name)["serves"]]
        return {
            "name": name,
            "serves": ", ".join(serves),
            "on": which_is_on(mode["mode"] == "up", steps),
            "switches": switches_for(kind),
            "has_inbox": kind == SUPPLIER,
        }

    async def _switch(self, request: web.Request) -> web.Response:
        system = request.match_info["system"]
        form = await request.post()
        await self._turn_on(
            system, switch_named(self._sandbox.system(system)["kind"], str(form.get("switch")))
        )
        raise web.HTTPSeeOther(f"/sandbox#{system}")

    async def _turn_on(self, system: str, switch: Switch) -> None:
        """Clear the switch that was on, then set this one."""
        steps = [("clear", {}), ("mode", {"mode": "down" if switch.key == DOWN else "up"})]
        steps += [("script", step) for step in switch.script]
        for do, body in steps:
            await self._desk.control({"system": system, "do": do, "with": body})

    async def _inbox(self, request: web.Request) -> web.Response:
        return await self._page(request, shown=None)

    async def _show_cpr(self, request: web.Request) -> web.Response:
        """Show one CPR number once: the page is not cached (no-store), and the next page masks the number again."""
        form = await request.post()
        return await self._page(request, shown=str(form.get("identity", "")))

    async def _page(self, request: web.Request, shown: str | None) -> web.Response:
        name = request.match_info["supplier"]
        format_ = self._sandbox.system(name).get("format")
        if format_ is None:
            raise Unknown(name)
        inbox = await self._desk.get(name, "inbox")
        reports = shown_reports(inbox, format_)
        cpr = next((cpr_of(report.token) for report in reports if report.identity == shown), None)
        values = {
            "supplier": name,
            "format": format_,
            "reports": reports,
            "count": len(inbox),
            "refused": refused_calls(await self._desk.get(name, "calls")),
            "shown": shown,
            "cpr": cpr or "not an invented citizen of this sandbox",
        }
        return aiohttp_jinja2.render_template("inbox.html", request, values)
