"""What `make run` does: all up, the sample day sent, a table of what became of it, then open for trying.

`python -m sandbox.play [--once]`. With --once it ends after the table: exit 0 only if every request met
exactly its expected end and the books agree. Servers and processes run under keepers (scripts/keeper.py) and
end with this process, however it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from datetime import date
from typing import Any
from uuid import uuid4

import aio_pika
import aiohttp
from aio_pika.abc import AbstractChannel

from sandbox.console_output import Progress, print_line, print_reports, print_requests
from sandbox.day_sender import DaySender, LineResult, check_books
from sandbox.desk_client import DeskClient
from sandbox.frontend import Frontend
from sandbox.make_day import FILE
from sandbox.report_check import ReportCheck, ReportResult, ends_from, letters_from, rows_of
from sandbox.samples import Line, Run, read_day
from sandbox.services import (
    COMMAND_S,
    CONFIG,
    DIRECTORY,
    FOLDER,
    Services,
    broker_command,
    login_link,
    running_services,
)
from sandbox.system_layout import default_layout
from scripts.processes import ROOT, StartFailed, tail

READY_S = 60.0
POLL_S = 0.1
REPORTS_S = 45.0  # a parked lane and a citizen's report that waits for its request take some 20 s
REPORTS_POLL_S = 0.5
LANES = tuple(f"jobnet.reports.{supplier}" for supplier in default_layout().suppliers)
QUEUES = ("jobnet.queries", "jobnet.bookings", "jobnet.citizen-reports", *LANES)


async def until_ready(amqp_url: str) -> None:
    """Wait until every work queue has a consumer. Raises TimeoutError."""
    async with asyncio.timeout(READY_S), await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        for name in QUEUES:
            while not await _consumers(channel, name):  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(POLL_S)


async def _consumers(channel: AbstractChannel, queue: str) -> int:
    return (await channel.declare_queue(queue, passive=True)).declaration_result.consumer_count or 0


async def send_day(services: Services) -> bool:
    """Send the sample day and show what became of it; whether all is as it must be."""
    set_up, lines = read_day(FILE)
    jobcenters = {code: plan.booking_system for code, plan in default_layout().jobcenters.items()}
    async with aiohttp.ClientSession() as http, Frontend(services.amqp_url) as frontend:
        desk = DeskClient(services.desk_url, http)
        index = await desk.index()
        run = Run(uuid4(), date.fromisoformat(index["first_day"]))
        with Progress(len(lines)) as progress:
            met = await DaySender(lines, run, frontend, desk).send(set_up, jobcenters, progress.ended)
        print_line("  waiting for the last failure reports to arrive")
        posted, wrong = await last_reports(lines, run, frontend, desk, services)
        wrong += await check_books(lines, desk, list(index["systems"]))
        wrong += [f"an answer that nobody waited for: {mark}" for mark in frontend.surplus]
    return _shown(met, posted, wrong)


async def last_reports(
    lines: list[Line], run: Run, frontend: Frontend, desk: DeskClient, services: Services
) -> tuple[list[ReportResult], list[str]]:
    """What became of the failure reports, as soon as it is what was expected, or after REPORTS_S."""
    suppliers = list(default_layout().suppliers)
    until = time.monotonic() + REPORTS_S
    while True:
        reports, dead = await asyncio.gather(rows_told(services, "reports"), rows_told(services, "dead"))
        inboxes = {name: await desk.get(name, "inbox") for name in suppliers}
        post = ReportCheck(run, ends_from(reports), inboxes, frontend.reports, letters_from(dead))
        posted, surplus = post.judged(lines), post.surplus(lines)
        if not (surplus or any(one.wrong for one in posted)) or time.monotonic() > until:
            return posted, surplus
        await asyncio.sleep(REPORTS_POLL_S)


async def rows_told(services: Services, *words: str) -> list[dict[str, Any]]:
    """What an operator reads with one of the broker's own lists. Raises StartFailed if the command fails."""
    process = await asyncio.create_subprocess_exec(
        *broker_command(*words, "list", "--json", "--limit", "1000"),
        env=os.environ | services.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(COMMAND_S):
        out, err = await process.communicate()
    if process.returncode != 0:
        raise StartFailed(f"jobnet-broker {' '.join(words)} list failed:\n{err.decode()}")
    return rows_of(out.decode())


def _shown(met: list[LineResult], posted: list[ReportResult], wrong: list[str]) -> bool:
    print_requests(met)
    print_reports(posted)
    everything: list[LineResult | ReportResult] = [*met, *posted]
    for one in everything:
        if one.wrong:
            print_line(f"NOT MET {one.line.id} ({one.line.type}): {'; '.join(one.wrong)}")
    for sentence in wrong:
        print_line(f"BOOKS {sentence}")
    as_expected, reported = sum(not one.wrong for one in met), sum(not one.wrong for one in posted)
    books = "DISAGREE" if wrong else "agree"
    print_line(
        f"{as_expected} of {len(met)} requests and {reported} of {len(posted)} failure reports met exactly"
        f" their expected end; the books {books}."
    )
    return not wrong and (as_expected, reported) == (len(met), len(posted))


async def play(services: Services, *, once: bool) -> bool:
    """The day, and then (without `once`) wait until Ctrl-C. Raises StartFailed if the broker ends."""
    work = asyncio.create_task(_work(services, once=once))
    try:
        while not work.done():
            await asyncio.wait([work], timeout=0.5)
            if not services.broker.alive() and not work.done():
                raise StartFailed(
                    f"the broker ended by itself. The end of its log:\n{tail(services.broker.log)}"
                )
        return work.result()
    finally:
        work.cancel()


async def _work(services: Services, *, once: bool) -> bool:
    await until_ready(services.amqp_url)
    good = await send_day(services)
    if not once:
        invite(services)
        await asyncio.Event().wait()
    return good


def invite(services: Services) -> None:
    """Tell what there is to try, and leave files for it."""
    exports = "".join(f"{name}='{value}'\n" for name, value in services.environment.items())
    with os.fdopen(os.open(FOLDER / "env", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(exports)
    body = {"cpr": "0101364001", "jobcenterkode": "90001", "kontaktgruppe": "2"}
    example = FOLDER / "example.jsonl"
    example.write_text(json.dumps({"type": "query.offers.v1", "body": body}) + "\n", encoding="utf-8")
    here = f"--config {CONFIG.relative_to(ROOT)} --directory {DIRECTORY.relative_to(ROOT)}"
    print_line(
        f"""
Everything keeps running until Ctrl-C. Open in a browser:
  Jobnet           {services.jobnet_url}/ book as an invented citizen (in Danish)
  switches         {services.jobnet_url}/sandbox make a system slow, silent, broken; the suppliers' inboxes
  console          {login_link(services)}
                   logs in once, within the hour; then {services.console_url}/
And for a terminal:
  RabbitMQ         {services.amqp_url}
  sandbox          {services.desk_url}/ its systems, {services.desk_url}/birk/_control/books one's books
                   {services.desk_url}/fyrtaarn/_control/inbox the reports that a supplier got
  broker           {services.health_url}/readyz how it is, {services.health_url}/metrics what it has counted
  broker's log     {services.broker.log.relative_to(ROOT)}
Send one by hand, in another terminal:
  set -a; . {FOLDER.relative_to(ROOT)}/env; set +a
  .venv/bin/jobnet-broker {here} send {example.relative_to(ROOT)}
Let a booking system answer 503 to the next two calls, and send it again:
  curl -d '{{"operation": "any", "action": "status", "status": 503, "times": 2}}' \\
    {services.desk_url}/birk/_control/script
"""
    )


def main() -> int:
    """0: all met. 1: something was not met or did not start (a sentence says what). 130: Ctrl-C."""
    options = argparse.ArgumentParser(prog="make run", description=__doc__)
    options.add_argument("--once", action="store_true", help="end after the table")
    once = options.parse_args().once
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running_services() as services:
            return 0 if asyncio.run(play(services, once=once)) else 1
    except KeyboardInterrupt:
        print_line("stopped")
        return 130
    except (StartFailed, TimeoutError, OSError) as error:
        print_line(f"{type(error).__name__}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
