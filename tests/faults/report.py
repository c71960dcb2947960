"""The result of a matrix as docs/reliability.md and docs/reliability.json: made from results alone, never by hand."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scripts import readme
from scripts.postgres import binaries
from scripts.processes import ROOT
from scripts.rabbitmq_dist import installation
from tests.faults.audit import TOLERANCE
from tests.faults.findings import SORTS
from tests.faults.matrix import KINDS, RECOVERY_S
from tests.faults.run import Result
from tests.faults.run_context import PATIENCE_S, WORKERS

PACKAGES = ("aio-pika", "aiormq", "aiohttp", "asyncpg", "uvloop", "cryptography")
MOST_FINDINGS = 200
HEAD = f"""\
# Reliability: what {WORKERS} workers keep through a seeded fault matrix

Made by `make faults`; not written by hand. The figures as data: [reliability.json](reliability.json).
`make faults SEED=17` runs seed 17 again, with the same requests and the same faults at the same requests.

Each seed sends bookings of all types, failing ones, queries and citizens' reports at a steady pace through real
processes (RabbitMQ, PostgreSQL, {WORKERS} workers, booking systems and suppliers over HTTP), does one fault alone and then
two together, waits until nothing is under way, and compares everybody's books: every answer and event the frontends
got, the ledger, the booking systems' books, the suppliers' inboxes, the queues and all logs.
"""
WORDS = f"""\
## What is counted

- **lost**: a request without an answer, a promised meeting that is not in the booking system's books, a failure or a
  citizen's words without a report at the supplier, an outcome event that never came, a gap in `ledger conserve`, a
  message left in a work queue, anything still under way when the time for it was over.
- **duplicated effects**: a meeting booked, moved, accepted or cancelled twice; a report taken in twice by its supplier.
- **late**: the first answer came more than the citizen's patience ({PATIENCE_S:g} s here)
  and {TOLERANCE.seconds} s after the request's `sentAt`, although no fault that is on this answer's path was there at any
  time between the two. A fault counts as there until {RECOVERY_S:g} s after its end. The table says which answers a
  fault is on the path of.
- **leaked**: a CPR number of the run, in any usual shape, in a log (the broker's, RabbitMQ's, PostgreSQL's), in a queue of
  ours, in any column of any table, in an event or in an answer.
- **untrue**: two different final answers to one request, or a last word that the booking system's books deny.

What looks like one of these and has an explanation by name is counted under that name, below.
"""


def facts_of(results: Sequence[Result], disk: str) -> dict[str, Any]:
    """Everything, for JSON."""
    per_fault: dict[str, Counter[str]] = {kind.name: Counter() for kind in KINDS}
    explained: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for result in results:
        explained.update(result.audit.explained)
        outcomes.update(result.audit.outcomes)
        for name, counts in result.audit.per_fault.items():
            per_fault.setdefault(name, Counter()).update(counts)
        for fault in result.plan.faults:
            per_fault[fault.name]["times"] += 1
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": len(results),
        "seed_numbers": [result.plan.seed for result in results],
        "requests": sum(result.plan.requests for result in results),
        **{sort: sum(result.audit.count(sort) for result in results) for sort in SORTS},
        "per_fault": {name: _row(counts) for name, counts in per_fault.items()},
        "outcomes": dict(outcomes.most_common()),
        "explained": dict(explained.most_common()),
        "unexplained": [
            f"seed {result.plan.seed}: {finding}" for result in results for finding in result.audit.findings
        ][:MOST_FINDINGS],
        "workers_that_ended_by_themselves": [
            f"seed {result.plan.seed}: {note}" for result in results for note in result.notes
        ],
        "plans": {
            str(result.plan.seed): {
                "faults": list(map(str, result.plan.faults)),
                "seconds": round(result.seconds),
            }
            for result in results
        },
        "ledger_disk_full_by": disk,
        "versions": versions(),
        "machine": {
            "system": platform.platform(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
        },
    }


def _row(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in ("times", "requests", *SORTS)}


def versions() -> dict[str, str]:
    """What was run."""
    rabbit = re.search(r"rabbitmq_server-([\d.]+)", str(installation().sbin))
    postgres = _said(str(binaries() / "postgres"), "--version")
    return {
        "jobnet-broker": version("jobnet-broker"),
        "commit": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "unknown",
        "rabbitmq": rabbit[1] if rabbit else "unknown",
        "postgresql": postgres.rpartition(" ")[2] or "unknown",
        **{name: version(name) for name in PACKAGES},
    }


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def markdown(facts: dict[str, Any]) -> str:
    """The page."""
    total = [f"**{facts['seeds']} seeds, {facts['requests']} requests**", _table(_totals(facts))]
    return "\n".join(
        [
            HEAD,
            "## Result\n",
            "\n\n".join(total),
            "\n" + WORDS,
            "## Per fault\n",
            "`requests` are those that were under way while the fault was there or its end was not "
            f"{RECOVERY_S:g} s ago; with two faults at once they count for both.\n",
            _table(_per_fault(facts)),
            "\n## What became of the requests\n",
            _table([("last word", "requests"), *facts["outcomes"].items()]),
            "\n## Explained by name\n",
            _table([("what", "how often"), *facts["explained"].items()]),
            *_sentences("Not explained", facts["unexplained"]),
            *_sentences(
                "Workers that ended by themselves (and were started again), or did not stop when told",
                facts["workers_that_ended_by_themselves"],
            ),
            "\n## Seeds\n",
            _table([("seed", "faults"), *((n, "; ".join(p["faults"])) for n, p in facts["plans"].items())]),
            "\n## Made with\n",
            _table([("what", "version"), *facts["versions"].items(), *facts["machine"].items()]),
            f"\nThe ledger's disk was full by {facts['ledger_disk_full_by']}. Made at {facts['made_at']}.\n",
        ]
    )


def _totals(facts: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(sort.replace("_", " ") for sort in SORTS), tuple(facts[sort] for sort in SORTS)]


def _per_fault(facts: dict[str, Any]) -> Iterable[tuple[Any, ...]]:
    kinds = {kind.name: kind for kind in KINDS}
    yield (
        "fault",
        "what",
        "on the path of",
        "times",
        "requests",
        *(sort.replace("_", " ") for sort in SORTS),
    )
    for name, row in facts["per_fault"].items():
        kind = kinds.get(name)
        yield (name, kind.says if kind else "", kind.on_path if kind else "", *row.values())


def _sentences(title: str, sentences: list[str]) -> list[str]:
    return [f"\n## {title}\n", *(f"- {sentence}" for sentence in sentences)] if sentences else []


def _table(rows: Iterable[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * (lines[0].count("|") - 1), *lines[1:]])


def write(results: Sequence[Result], disk: str, folder: Path) -> dict[str, Any]:
    """Both files; returns the facts."""
    facts = facts_of(results, disk)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reliability.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    (folder / "reliability.md").write_text(markdown(facts))
    if folder == ROOT / "docs":
        readme.renew()
    return facts
