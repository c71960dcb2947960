"""Builds the application's routes from a table, and checks that every route has a row with a right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from broker.console.rights import Right


class Open(Enum):
    """For addresses that need no right. It must be written explicitly."""

    ANYONE = "anyone"


@dataclass(frozen=True, slots=True)
class PageRoute:
    """One address: the right it needs, its handler, and its title in the navigation if it is shown there.

    `background`: pages request it by themselves, so it does not count as activity of the user.
    """

    method: Literal["GET", "POST"]
    path: str
    needs: Right | Open
    handler: Handler
    title: str | None = None
    background: bool = False


ROUTES = web.AppKey("routes", dict[web.AbstractRoute, PageRoute])


class TableBroken(Exception):
    """An address has no row, or a row is invalid. The console does not start."""


def add_rows(app: web.Application, rows: Iterable[PageRoute]) -> None:
    """Add the routes of the table."""
    app[ROUTES] = {app.router.add_route(row.method, row.path, row.handler): row for row in rows}


def check_rows(app: web.Application) -> None:
    """Raises TableBroken unless every route of the application has a row with a right."""
    rows = app[ROUTES]
    for route in app.router.routes():
        row = rows.get(route)
        if row is None:
            raise TableBroken(f"{route.method} {route.resource}: has no row in broker/console/page_routes.py")
        if not isinstance(row.needs, Right | Open):
            raise TableBroken(f"{row.method} {row.path}: must name a right, or Open.ANYONE")
        if row.needs is Open.ANYONE and row.path not in OPEN_PATHS:
            raise TableBroken(
                f"{row.method} {row.path}: is not among the addresses that may be open to anyone"
            )


OPEN_PATHS = frozenset({"/login", "/login/link", "/login/link/{link}", "/static/{name}"})
