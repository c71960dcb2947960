"""The load generator, a separate process: publishes requests with confirms and waits for their answers.

Closed load (`--window`): a constant number of requests is in flight. Open load (`--rate`): requests are sent at a
constant rate. It prints a line of JSON when the warm-up is over, one when the tail begins, and one with the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import Counter
from typing import Any
from uuid import uuid4

import aiormq
import uvloop
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from bench import job

REQUEST_ID = re.compile(rb'"requestId":\s*\\?"([-0-9a-f]{36})')
STATUS = re.compile(rb'"status":\s*\\?"([a-z]+)')
SILENCE_S = 45.0
"""The run has failed if no answer comes for this long."""


class LoadGenerator:
    """One run with the options of the command line."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._warm: int = options.warmup
        self._sent: dict[bytes, tuple[float, bool]] = {}
        self._times: list[float] = []
        self._statuses: Counter[str] = Counter()
        self._answered = 0
        self._counted: int = options.count - options.tail
        self._measure_start = self._measure_end = 0.0
        self._last_answer = time.perf_counter()
        self._window = asyncio.Semaphore(options.window or options.count)
        self._done = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        connections = [await aiormq.connect(job.AMQP_URL) for _ in range(2)]
        publishing, consuming = await connections[0].channel(), await connections[1].channel()
        await consuming.basic_consume(self._options.answers, self._on_answer, no_ack=True)
        publishing_tasks: set[asyncio.Task[None]] = set()
        started = time.perf_counter()
        for number in range(self._options.count):
            await self._wait_to_send(number, started)
            task = asyncio.create_task(self._publish(publishing, number))
            publishing_tasks.add(task)
            task.add_done_callback(publishing_tasks.discard)
        await self._all_answered()
        for connection in connections:
            await connection.close()
        return self._figures()

    async def _wait_to_send(self, number: int, started: float) -> None:
        if self._options.rate:
            wait = started + number / self._options.rate - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
        else:
            await self._window.acquire()

    async def _publish(self, channel: AbstractChannel, number: int) -> None:
        first: int = self._options.first - self._options.first % job.SYSTEMS
        request_id, body = job.request(first + number, padding=self._options.padding)
        exchange, key, properties, body = ENVELOPES[self._options.envelope](request_id, body)
        separate = self._options.apart and number % job.SYSTEMS == job.SYSTEMS - 1
        self._sent[request_id.encode()] = time.perf_counter(), not separate
        await channel.basic_publish(body, exchange=exchange, routing_key=key, properties=properties)

    async def _on_answer(self, message: DeliveredMessage) -> None:
        now = self._last_answer = time.perf_counter()
        found = REQUEST_ID.search(message.body)
        sent = self._sent.pop(found[1], None) if found else None
        if sent is None:
            return  # a duplicate, or an answer to an earlier run
        self._window.release()
        self._answered += 1
        status = STATUS.search(message.body)
        self._statuses[status[1].decode() if status else "?"] += 1
        if self._answered == self._warm:
            self._measure_start = now
            print(json.dumps({"warm": self._answered}), flush=True)
        elif self._warm < self._answered <= self._counted and sent[1]:
            self._times.append(now - sent[0])
        if self._answered == self._counted:
            self._measure_end = now
            print(json.dumps({"measured": self._counted - self._warm}), flush=True)
        if self._answered == self._options.count:
            self._done.set()

    async def _all_answered(self) -> None:
        while not self._done.is_set():
            try:
                await asyncio.wait_for(self._done.wait(), 1)
            except TimeoutError:
                if time.perf_counter() - self._last_answer > SILENCE_S:
                    raise SystemExit(
                        f"only {self._answered} of {self._options.count} were answered"
                    ) from None

    def _figures(self) -> dict[str, Any]:
        times = sorted(self._times)
        seconds = self._measure_end - self._measure_start
        return {
            "answered": self._counted - self._warm,
            "seconds": seconds,
            "rate": (self._counted - self._warm) / seconds,
            "statuses": dict(self._statuses),
            **{f"p{p}_ms": 1000 * times[min(len(times) - 1, len(times) * p // 100)] for p in (50, 95, 99)},
        }


Envelope = tuple[str, str, Basic.Properties, bytes]


def plain(request_id: str, body: bytes) -> Envelope:
    """A request as frontends send it."""
    properties = Basic.Properties(
        content_type="application/json",
        message_type=job.TYPE,
        message_id=str(uuid4()),
        correlation_id=request_id,
        reply_to=job.ANSWERS,
        delivery_mode=2,
    )
    return job.REQUESTS, job.KEY, properties, body


def dramatiq(request_id: str, body: bytes) -> Envelope:
    """A message as `actor.send` of Dramatiq writes it."""
    message = {
        "queue_name": job.BOOKINGS,
        "actor_name": "handle",
        "args": [json.loads(body)],
        "kwargs": {},
        "options": {},
        "message_id": request_id,
        "message_timestamp": int(time.time() * 1000),
    }
    return "", job.BOOKINGS, Basic.Properties(delivery_mode=2), json.dumps(message).encode()


def celery(request_id: str, body: bytes) -> Envelope:
    """A message of Celery's protocol, version 2."""
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    properties = Basic.Properties(
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id=request_id,
        delivery_mode=2,
        headers={"lang": "py", "task": "handle", "id": request_id, "root_id": request_id, "retries": 0},
    )
    return "", job.BOOKINGS, properties, json.dumps([[json.loads(body)], {}, nothing]).encode()


ENVELOPES = {"plain": plain, "dramatiq": dramatiq, "celery": celery}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--tail", type=int, default=0, help="answers at the end that are not counted")
    parser.add_argument("--window", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--padding", type=int, default=0)
    parser.add_argument(
        "--apart",
        type=int,
        default=0,
        help="1: leave the requests of the last system out of the response times",
    )
    parser.add_argument("--answers", default=job.ANSWERS)
    parser.add_argument("--envelope", choices=ENVELOPES, default="plain")
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(uvloop.run(LoadGenerator(options()).run())), flush=True)
