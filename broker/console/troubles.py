"""Error pages: one sentence, without a traceback and without anything that was sent."""

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
    405: "this address does not accept this method",
    413: "the form is too large",
}


@web.middleware
async def error_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into an error page."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        sentence = SENTENCES.get(error.status) or error.text or error.reason
        return error_page(request, error.status, sentence)
    except Refusal as refusal:
        return error_page(request, 409, str(refusal))
    except LedgerAway:
        return error_page(request, 503, "the ledger (PostgreSQL) cannot be reached; try again in a moment")
    except BrokerError as error:
        log.error("console-error", error=error)
        return error_page(request, 500, "this failed; the console's log says why")
    except Exception:
        log.exception("console-error")
        return error_page(request, 500, "this failed because of a bug in the console; its log says where")


def error_page(request: web.Request, status: int, sentence: str) -> web.Response:
    """A page that says what is wrong."""
    return render("trouble.html", request, status=status, code=status, sentence=sentence)
