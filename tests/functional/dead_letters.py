"""Settings and queues of the dead-letter tests, also for the process that one of them kills."""

from __future__ import annotations

from typing import Any

from config.settings import Settings, build
from tests.ledger.support import key

LANE = "jobnet.reports.nordsoft.dead"
BOOKINGS = "jobnet.bookings.dead"
UNROUTED = "jobnet.unrouted.dead"
QUERIES = "jobnet.queries.dead"
ALL = (LANE, BOOKINGS, UNROUTED, QUERIES)


def settings_of(url: str, dsn: str, **dead: Any) -> Settings:
    return build(
        {
            "rabbitmq": {"url": url, "publish_timeout_seconds": 5},
            "ledger": {"dsn": dsn},
            "keys": {
                "sealing": {"s1": key(1)},
                "seal_with": "s1",
                "tokens": {"t1": key(11)},
                "token_order": ["t1"],
            },
            "dead": {"pass_batch": 50, **dead},
        }
    )
