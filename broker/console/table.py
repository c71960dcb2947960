"""What a row of the table of addresses is, and how the application is made of rows and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from broker.console.rights import Right


class Open(Enum):
    """Needs no right: said on purpose, never by leaving something out."""

    ANYONE = "anyone"


@dataclass(frozen=True, slots=True)
class PageRoute:
    """One address: what it needs, who answers, and its name in the navigation if it is a place to go to.

    `quiet`: what a page asks for by itself there is no sign of life of its user.
    """

    method: Literal["GET", "POST"]
    path: str
    needs: Right | Open
    handler: Handler
    place: str | None = None
    quiet: bool = False


ROWS = web.AppKey("rows", dict[web.AbstractRoute, PageRoute])


class TableBroken(Exception):
    """An address without a row, or a row that says something impossible: the console does not start."""


def add_rows(app: web.Application, rows: Iterable[PageRoute]) -> None:
    """Make the addresses of the table."""
    app[ROWS] = {app.router.add_route(row.method, row.path, row.handler): row for row in rows}


def check_rows(app: web.Application) -> None:
    """Raises TableBroken unless every address there is has a row with a right."""
    rows = app[ROWS]
    for route in app.router.routes():
        row = rows.get(route)
        if row is None:
            raise TableBroken(f"{route.method} {route.resource}: has no row in broker/console/page_routes.py")
        if not isinstance(row.needs, Right | Open):
            raise TableBroken(f"{row.method} {row.path}: must name a right, or that anyone may")
        if row.needs is Open.ANYONE and row.path not in OPEN_PATHS:
            raise TableBroken(
                f"{row.method} {row.path}: is not among the addresses that may be open to anyone"
            )


OPEN_PATHS = frozenset({"/login", "/login/link", "/login/link/{link}", "/static/{name}"})
