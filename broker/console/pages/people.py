"""Personal data, for who may: one field of one thing revealed once, and a citizen's things found by number.

Both ask for a reason and are in the operators' log before anything is shown. No answer is kept by the browser.
"""

from __future__ import annotations

from aiohttp import web

from broker.console.context import DESK, actor, form, render
from broker.console.pages.trace import id_in
from broker.ops import Refusal
from schemas.personal import Cpr


async def ask_reveal(request: web.Request) -> web.StreamResponse:
    """Which field, and why."""
    return render("reveal.html", request, thing=id_in(request), value=None, field="")


async def reveal(request: web.Request) -> web.StreamResponse:
    """The value, in this one answer."""
    thing, field = id_in(request), form(request).get("field", "").strip()
    value = await request.app[DESK].people.reveal(thing, field, actor(request))
    return render("reveal.html", request, thing=thing, value=value, field=field)


async def ask_find(request: web.Request) -> web.StreamResponse:
    """Whose, and why."""
    return render("find.html", request, found=None)


async def find(request: web.Request) -> web.StreamResponse:
    """Everything of a citizen. The number comes in the form's body and is in no answer."""
    try:
        cpr = Cpr(form(request).get("cpr", "").strip().replace("-", "").replace(" ", ""))
    except ValueError:
        raise Refusal("this is no CPR number: it has ten digits that begin with a date") from None
    found = await request.app[DESK].people.find(cpr, actor(request))
    return render("find.html", request, found=found)
