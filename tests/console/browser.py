"""A simple browser for the console's tests. It keeps cookies and sends forms as the console's pages would."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import aiohttp
from aiohttp import web
from yarl import URL

from broker.console.context import SESSIONS, SETTINGS
from broker.console.cookies import SESSION
from broker.console.session_store import Session
from broker.console.table import PageRoute

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
ANY_ID = str(UUID(int=7))
PARTS = {"{id}": ANY_ID, "{name}": "console.css", "{link}": "none", "{supplier}": "nordsoft"}
TOKEN = re.compile(r'name="token" value="([^"]+)"')


class Page:
    """One complete answer."""

    def __init__(self, status: int, headers: Mapping[str, str], text: str) -> None:
        self.status, self.headers, self.text = status, headers, text

    @property
    def location(self) -> str:
        return self.headers.get("Location", "")

    @property
    def token(self) -> str:
        """The token in the first form of the page."""
        found = TOKEN.search(self.text)
        assert found, f"no form on the page: {self.text[:500]}"
        return found[1]


class Browser:
    """Keeps cookies and follows no redirects. `seen` holds the text and headers of every answer."""

    def __init__(self, app: web.Application) -> None:
        self.app = app
        self.origin = f"http://127.0.0.1:{app[SETTINGS].console.port}"
        self.seen: list[str] = []
        self.session: Session | None = None
        self._secret = ""
        self._http = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=aiohttp.ClientTimeout(total=30)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    def log_in(self, *roles: str, name: str = "bo") -> Self:
        """Log in without a password."""
        self._secret, self.session = self.app[SESSIONS].begin(name, roles, "test")
        self.restore_cookie()
        return self

    def restore_cookie(self) -> None:
        """Set the cookie of `log_in` again, like an attacker who copied it."""
        self._http.cookie_jar.update_cookies({SESSION: self._secret}, URL(self.origin))

    async def clear_cookies(self) -> None:
        """As if the browser were closed and opened again."""
        self._http.cookie_jar.clear()
        self.session = None

    async def get(self, path: str, **headers: str) -> Page:
        return await self._ask("GET", path, headers=_names(headers))

    async def post(
        self, path: str, fields: Mapping[str, str] | None = None, *, token: str | None = None, **headers: str
    ) -> Page:
        """Send a form with the session's token, or `token`. `headers` replace those of a page of the console."""
        token = token if token is not None else (self.session.token if self.session else "")
        sent = SAME_ORIGIN | _names(headers)
        data = {"token": token, **(fields or {})}
        return await self._ask("POST", path, headers={k: v for k, v in sent.items() if v}, data=data)

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[Stream]:
        """Open a stream of server-sent events."""
        async with self._http.get(self.origin + path, allow_redirects=False) as answer:
            yield Stream(answer)

    async def _ask(self, method: str, path: str, **more: Any) -> Page:
        async with self._http.request(method, self.origin + path, allow_redirects=False, **more) as answer:
            page = Page(answer.status, answer.headers, await _text(answer))
        self.seen.append(page.text + repr(dict(page.headers)))
        return page


class Stream:
    """A stream of server-sent events."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.status = answer.status
        self._answer = answer

    async def next(self) -> str | None:
        """The data of the next event; None when the stream has ended."""
        try:
            raw = await self._answer.content.readuntil(b"\n\n")
        except (asyncio.IncompleteReadError, aiohttp.ClientError):
            return None
        lines = raw.decode().splitlines()
        return "\n".join(line.removeprefix("data: ") for line in lines if line) if raw else None


async def _text(answer: aiohttp.ClientResponse) -> str:
    """The whole text; of a stream, the first event."""
    if answer.content_type != "text/event-stream":
        return await answer.text()
    return (await answer.content.readuntil(b"\n\n")).decode()


def _names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def address(row: PageRoute) -> str:
    """A path of this route, with a value for each of its parts."""
    path = row.path
    for part, value in PARTS.items():
        path = path.replace(part, value)
    assert "{" not in path, f"PARTS needs a value for {row.path}"
    return path
