"""Personal data: reveal one field of one record, and find a citizen's records by CPR number.

Both need a right and a reason, and are in the operators' log before anything is shown. Browsers do not cache the
answers.
"""

from __future__ import annotations

from aiohttp import web

from broker.console.context import OPERATIONS, actor_of, form_of, render
from broker.console.pages.trace import id_in
from broker.ops import Refusal
from schemas.personal import Cpr


async def reveal_form(request: web.Request) -> web.StreamResponse:
    """Ask for the field and the reason."""
    return render("reveal.html", request, thing=id_in(request), value=None, field="")


async def reveal(request: web.Request) -> web.StreamResponse:
    """Show the value in this answer only."""
    thing, field = id_in(request), form_of(request).get("field", "").strip()
    value = await request.app[OPERATIONS].people.reveal(thing, field, actor_of(request))
    return render("reveal.html", request, thing=thing, value=value, field=field)


async def find_form(request: web.Request) -> web.StreamResponse:
    """Ask for the CPR number and the reason."""
    return render("find.html", request, found=None)


async def find(request: web.Request) -> web.StreamResponse:
    """All records of a citizen. The CPR number is in the form's body, never in an address or an answer."""
    try:
        cpr = Cpr(form_of(request).get("cpr", "").strip().replace("-", "").replace(" ", ""))
    except ValueError:
        raise Refusal("this is no CPR number: a CPR number has ten digits and begins with a date") from None
    records = await request.app[OPERATIONS].people.find(cpr, actor_of(request))
    return render("find.html", request, found=records)
