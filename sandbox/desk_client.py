"""Client of the sandbox's control interface (control_api.py), over HTTP.

The desk is that interface for all systems on one port; it also answers for a system that is down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp


class DeskClient:
    """Sends control steps to the desk and reads what the systems recorded. Methods raise ValueError on a refusal."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def index(self) -> dict[str, Any]:
        """The first day of the calendars, the systems and the jobcenters."""
        index: dict[str, Any] = await self._call("GET", "/")
        return index

    async def control(self, step: Mapping[str, Any]) -> None:
        """Carry out one control step: its `system`, what to `do`, and the JSON to do it `with`."""
        await self._call("POST", f"/{step['system']}/_control/{step['do']}", step["with"])

    async def get(self, system: str, what: str, filters: Mapping[str, Any] | None = None) -> Any:
        """The `books`, `inbox`, `breaches`, `script`, `mode` or `calls` of a system; `filters` is for calls."""
        return await self._call("GET", f"/{system}/_control/{what}", filters)

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        async with self._http.request(method, f"{self._url}{path}", json=body) as response:
            result = await response.json()
        if response.status != 200:
            raise ValueError(f"the sandbox refused {method} {path}: {result}")
        return result
