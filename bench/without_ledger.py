"""The broker with a stubbed ledger whose claims and settles succeed and write nothing, to measure the ledger's cost.

`python -m bench.without_ledger …` takes the broker's own command line. Heartbeat and scheduler are real. It guarantees
nothing; only the benchmark's curves use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from broker.cli.main import main
from broker.ledger.model import RequestFacts, Settled, State
from broker.ledger.requests.claims import Claims
from broker.ledger.requests.settles import Settles


async def _claimed(self: Claims, entries: Sequence[Any]) -> list[Any]:
    now = {"settled_at": datetime.now(UTC)}
    return [self._inserted(entry, now) for entry in entries]


async def _settled(self: Settles, entries: Sequence[Any]) -> list[Any]:
    facts = RequestFacts(
        "booking.book.v1", "90001", "planner", "s90001", "f90001", State.SETTLED, False, datetime.now(UTC)
    )
    return [Settled(entry.ending, facts) for entry in entries]


if __name__ == "__main__":
    Claims.flush = _claimed  # type: ignore[method-assign]
    Settles.flush = _settled  # type: ignore[method-assign]
    main(prog_name="jobnet-broker")
