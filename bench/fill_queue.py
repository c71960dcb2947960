"""Fills a queue before a run: with expired requests, or with whole reports for the bare delivery loop.

`python -m bench.fill_queue requests|reports COUNT`. It uses no publisher confirms; the caller checks the queue depth.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import aiormq
import uvloop
from pamqp.commands import Basic

from bench import job
from bench.load_generator import plain

BATCH = 500
TOO_OLD = timedelta(hours=2)


async def main(kind: str, count: int) -> None:
    connection = await aiormq.connect(job.AMQP_URL)
    channel = await connection.channel(publisher_confirms=False)
    sent_at = (datetime.now(UTC) - TOO_OLD).isoformat()
    for start in range(0, count, BATCH):
        for number in range(start, min(start + BATCH, count)):
            if kind == "reports":
                exchange, key, properties, body = report(number)
            else:
                exchange, key, properties, body = plain(*job.request(number, sent_at=sent_at))
            await channel.basic_publish(body, exchange=exchange, routing_key=key, properties=properties)
        await asyncio.sleep(0)
    await connection.close()


def report(number: int) -> tuple[str, str, Basic.Properties, bytes]:
    """A whole failure report, as the bare loop forwards it."""
    body = {
        "cpr": job.cpr_of(number),
        "jobcenterkode": job.jobcenter_of(number),
        "report": {
            "moedetilbudId": job.OFFER,
            "fejlkode": 4,
            "fejltekst": "Systemfejl i kontakten med jobcentrets bookingsystem.",
            "fejlOphav": {"id": 32, "navn": "Jobnet"},
            "fejlTidspunkt": job.STARTS_AT,
        },
    }
    properties = Basic.Properties(message_id=str(uuid4()), delivery_mode=2, content_type="application/json")
    return "", job.REPORTS, properties, json.dumps(body).encode()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
