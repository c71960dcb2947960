"""A stand-in Planner: the offers of a jobcenter for a citizen's contact group. It stores nothing."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sandbox.contract import OperationRules
from sandbox.journal import Call
from sandbox.system import System
from sandbox.system_layout import GROUP_WITHOUT_OFFERS, Layout, OfferKind, offer_id


class PlannerServer(System):
    """Offers by jobcenter, kontaktgruppe and straksbooking."""

    def __init__(self, name: str, layout: Layout) -> None:
        super().__init__(name, layout.served_by(name), host=layout.host, port=layout.planners[name].port)
        self._layout = layout

    def routes(self) -> list[web.RouteDef]:
        """The one path of a Planner."""
        rules = OperationRules(query=("kontaktgruppe", "straksbooking"), needed=("kontaktgruppe",))

        async def serve(request: web.Request) -> web.StreamResponse:
            asked = request.query.get("kontaktgruppe", ""), request.query.get("straksbooking", "false")
            return await self.handler("offers", rules, lambda call: self._offers(call, *asked))(request)

        return [web.get("/v1/BorgerBooking/Moedetilbud", serve)]

    def _offers(self, call: Call, group: str, immediate: str) -> web.Response:
        kinds = [k for k in self._layout.kinds if k.immediate == (immediate == "true")]
        found = [] if group == GROUP_WITHOUT_OFFERS else [self._offer(call.jobcenter, kind) for kind in kinds]
        return web.json_response({"moedetilbud": found})

    def _offer(self, jobcenter: str, kind: OfferKind) -> dict[str, Any]:
        used = {form for forms in kind.forms for form in forms}
        return {
            "moedetilbudId": str(offer_id(jobcenter, kind.name)),
            "samtaletype": kind.conversation_type,
            "moedeGruppeType": 1,
            "moedeformer": sorted(used),
            "lokation": self._layout.jobcenters[jobcenter].name,
        }
