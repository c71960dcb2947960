"""Everybody's books at the end of a run, as plain data: frontends', the ledger's, the external systems', the suppliers'.

Collecting only; audit.py judges.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import aio_pika

from broker.rabbitmq.topology import WORK_QUEUES, dead_queues, lane_of
from sandbox.audit import Entry
from tests.faults.load import Errand
from tests.faults.run_context import RunContext, Window
from tests.functional.running_broker import cpr_of

OURS = frozenset({"at-capacity", "not-sent", "misconfigured", "bug"})
"""Causes of failures of the broker itself, which make no report (docs/architecture.md#outcomes)."""


NOT_TOLD = "outcome-not-announced"
"""The broker gave an outcome event up, and said so."""


@dataclass
class Books:
    """What everybody says."""

    answers: dict[str, list[dict[str, Any]]]
    first_answer_at: dict[str, datetime]
    events: dict[str, list[dict[str, Any]]]
    requests: dict[str, dict[str, Any]]
    reports: list[dict[str, Any]]
    attempts: dict[str, list[dict[str, Any]]]
    meetings: dict[UUID, Any]
    entries: dict[UUID, list[Entry]]
    inbox: dict[str, list[dict[str, Any]]]
    disagreements: list[str]
    breaches: list[str]
    causes: dict[str, set[str]]
    windows: list[Window]
    killed_at: list[datetime]
    gaps: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    left_in_queues: dict[str, int] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)


async def collect(context: RunContext) -> Books:
    """Called when all is quiet and the workers have stopped."""
    broker, sandbox, citizens = context.broker, context.broker.sandbox, context.citizens
    entries: dict[UUID, list[Entry]] = defaultdict(list)
    for system in sandbox.booking_systems.values():
        for entry in system.book.entries:
            entries[entry.invitation].append(entry)
    attempts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in await broker.rows(
        "SELECT * FROM attempts LEFT JOIN attempt_results USING (report_id, number)"
    ):
        attempts[str(row["report_id"])].append(dict(row))
    books = Books(
        answers=dict(citizens.answers),
        first_answer_at=citizens.first_answer_at,
        events=dict(citizens.events),
        requests={str(r["request_id"]): dict(r) for r in await broker.rows("SELECT * FROM requests")},
        reports=[dict(row) for row in await broker.rows("SELECT * FROM reports")],
        attempts=attempts,
        meetings={
            invitation: meeting
            for system in sandbox.booking_systems.values()
            for invitation, meeting in system.book.meetings.items()
        },
        entries=entries,
        inbox={name: supplier.inbox() for name, supplier in sandbox.suppliers.items()},
        disagreements=sandbox.disagreements(),
        breaches=sandbox.breaches(),
        causes=_causes(context),
        windows=context.windows,
        killed_at=context.workers.killed_at,
    )
    await _look_everywhere(context, books)
    return books


def _causes(context: RunContext) -> dict[str, set[str]]:
    """What the workers' logs say of each request."""
    causes: dict[str, set[str]] = defaultdict(set)
    for process in context.broker.processes:
        for line in process.lines():
            if line.get("event") == "request-handled" and line.get("cause"):
                causes[str(line.get("request_id"))].add(str(line["cause"]))
            elif line.get("event") == NOT_TOLD:
                causes[str(line.get("request_id"))].add(NOT_TOLD)
    return causes


async def _look_everywhere(context: RunContext, books: Books) -> None:
    """Every place where no CPR number may be: logs, queues, tables, events, answers."""
    texts = books.texts
    texts["outcome events"] = repr(books.events).encode()
    texts["answers"] = repr(books.answers).encode()
    texts["log of the broker"] = b"\n".join(p.log.read_bytes() for p in context.broker.processes)
    for name, path in context.servers.logs().items():
        texts[name] = path.read_bytes() if path.exists() else b""
    for table in await context.broker.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        rows = await context.broker.rows(f'SELECT * FROM "{table[0]}"')  # noqa: S608  names from the catalogue
        texts[f"table {table[0]}"] = b"\n".join(repr(dict(row)).encode() for row in rows)
    suppliers = list(context.broker.sandbox.suppliers)
    async with await aio_pika.connect(context.broker.amqp_url) as connection:
        for queue in (*dead_queues(suppliers), *WORK_QUEUES, *map(lane_of, suppliers)):
            bodies = await _bodies(connection, queue)
            texts[f"queue {queue}"] = b"\n".join(bodies)
            books.left_in_queues[queue] = len(bodies) // 2


async def _bodies(connection: aio_pika.abc.AbstractConnection, queue: str) -> list[bytes]:
    channel = await connection.channel()
    declared = await channel.declare_queue(queue, passive=True)
    found: list[bytes] = []
    while (message := await declared.get(fail=False)) is not None:
        found += [message.body, repr(message.info()).encode()]
    await channel.close()
    return found


def leaks(books: Books, errands: Iterable[Errand]) -> list[str]:
    """A sentence for each place where a number of this run shows, in any of its usual shapes."""
    found = []
    for cpr in {cpr_of(errand.number) for errand in errands} | {str(e.body["cpr"]) for e in errands}:
        encoded = base64.b64encode(cpr.encode()).rstrip(b"=")
        shapes = (cpr.encode(), f"{cpr[:6]}-{cpr[6:]}".encode(), f"{cpr[:6]} {cpr[6:]}".encode(), encoded)
        found += [
            f"a CPR number shows in {place}"
            for place, text in books.texts.items()
            if any(shape in text for shape in shapes)
        ]
    return found
