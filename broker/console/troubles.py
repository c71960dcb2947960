"""What went wrong, as a page: one sentence, no trace, nothing of what was sent."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from broker.console.context import render
from broker.errors import BrokerError, LedgerAway
from broker.ops import Refusal
from broker.telemetry.log import get_logger

log = get_logger("console")

SENTENCES = {
    404: "there is no such page",
    405: "this address does not take that",
    413: "this is more than a form of this console holds",
}


@web.middleware
async def as_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error becomes a page of ours."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        said = SENTENCES.get(error.status) or error.text or error.reason
        return trouble(request, error.status, said)
    except Refusal as refusal:
        return trouble(request, 409, str(refusal))
    except LedgerAway:
        return trouble(request, 503, "the ledger (PostgreSQL) cannot be reached; try again in a moment")
    except BrokerError as error:
        log.error("console-trouble", error=error)
        return trouble(request, 500, "this did not work; the console's log says why")
    except Exception:
        log.exception("console-trouble")
        return trouble(request, 500, "this did not work, by a mistake of ours; the console's log says where")


def trouble(request: web.Request, status: int, sentence: str) -> web.Response:
    """A page that says what is wrong."""
    return render("trouble.html", request, status=status, code=status, sentence=sentence)
