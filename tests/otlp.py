"""A small OpenTelemetry collector for tests: takes spans over OTLP/HTTP, keeps them and their bytes, may be ill."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire

from tests.support import poll


@dataclass(frozen=True)
class Span:
    """One span as it arrived; ids in hex, an empty parent is none."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    began: int
    ended: int
    failed: bool
    links: tuple[tuple[str, str], ...]
    facts: dict[str, object] = field(hash=False, compare=False)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


class Collector:
    """`async with Collector() as collector`. `ill`: answers 503; `hung`: never answers."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.asked = 0
        self.ill = False
        self.hung = False
        self._free = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.endpoint = f"http://127.0.0.1:{port}/v1/traces"
        self.changes = {"JOBNET_BROKER__TRACING__ENDPOINT": self.endpoint}
        return self

    async def __aexit__(self, *_: object) -> None:
        self._free.set()
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked += 1
        if self.hung:
            await self._free.wait()
        if self.ill:
            return web.Response(status=503)
        self.bodies.append(body)
        asked = ExportTraceServiceRequest.FromString(body)
        for resource in asked.resource_spans:
            for scope in resource.scope_spans:
                self.spans += [_read(span) for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    def named(self, name: str, trace_id: str | None = None) -> list[Span]:
        """Those of this name, as they came, of one trace or of all."""
        return [span for span in self.spans if span.name == name and trace_id in (None, span.trace_id)]

    async def one(self, name: str, trace_id: str | None = None) -> Span:
        """Wait for the first of this name."""
        found: list[Span] = await poll(lambda: self.named(name, trace_id), what=f"span {name}")
        return found[0]

    def below(self, parent: Span, name: str) -> list[Span]:
        return [span for span in self.named(name, parent.trace_id) if span.parent == parent.span_id]


def _read(span: Wire) -> Span:
    return Span(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        failed=span.status.code == 2,
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        facts=dict(_facts(span)),
    )


def _facts(span: Wire) -> Iterable[tuple[str, object]]:
    for pair in span.attributes:
        kind = pair.value.WhichOneof("value")
        yield pair.key, getattr(pair.value, kind) if kind else None
