"""The program behind `make run`: start everything, send the sample day, print the results, keep running.

`python -m sandbox.play [--once]`. With --once it ends after the results: exit 0 only if every request and report
ended as expected and the books agree. Servers and processes run under keepers (scripts/keeper.py) and end with
this process, also when it is killed.
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
from sandbox.report_check import ReportCheck, ReportResult, causes_from, ends_from, rows_of
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
# A parked lane, or a citizen's report that waits for its request, takes about 20 s.
REPORTS_S = 45.0
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
    """Send the sample day and print the results. Returns whether everything ended as expected."""
    set_up, lines = read_day(FILE)
    jobcenters = {code: plan.booking_system for code, plan in default_layout().jobcenters.items()}
    async with aiohttp.ClientSession() as http, Frontend(services.amqp_url) as frontend:
        desk = DeskClient(services.desk_url, http)
        index = await desk.index()
        run = Run(uuid4(), date.fromisoformat(index["first_day"]))
        with Progress(len(lines)) as progress:
            results = await DaySender(lines, run, frontend, desk).send(set_up, jobcenters, progress.ended)
        print_line("  waiting for the last failure reports")
        reports, problems = await last_reports(lines, run, frontend, desk, services)
        problems += await check_books(lines, desk, list(index["systems"]))
        problems += [f"unexpected answer: {mark}" for mark in frontend.unexpected_answers]
    return print_results(results, reports, problems)


async def last_reports(
    lines: list[Line], run: Run, frontend: Frontend, desk: DeskClient, services: Services
) -> tuple[list[ReportResult], list[str]]:
    """Check the failure reports until they are as expected, at most REPORTS_S; results and unexpected reports."""
    suppliers = list(default_layout().suppliers)
    until = time.monotonic() + REPORTS_S
    while True:
        reports, dead = await asyncio.gather(list_rows(services, "reports"), list_rows(services, "dead"))
        inboxes = {name: await desk.get(name, "inbox") for name in suppliers}
        check = ReportCheck(run, ends_from(reports), inboxes, frontend.report_events, causes_from(dead))
        results, unexpected = check.results(lines), check.unexpected(lines)
        if not (unexpected or any(result.problems for result in results)) or time.monotonic() > until:
            return results, unexpected
        await asyncio.sleep(REPORTS_POLL_S)


async def list_rows(services: Services, *words: str) -> list[dict[str, Any]]:
    """The rows of one of the broker's list commands. Raises StartFailed if the command fails."""
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


def print_results(requests: list[LineResult], reports: list[ReportResult], problems: list[str]) -> bool:
    """Print tables, problems and a summary. Returns whether everything ended as expected."""
    print_requests(requests)
    print_reports(reports)
    results: list[LineResult | ReportResult] = [*requests, *reports]
    for result in results:
        if result.problems:
            line = result.line
            print_line(f"NOT AS EXPECTED {line.id} ({line.type}): {'; '.join(result.problems)}")
    for problem in problems:
        print_line(f"BOOKS {problem}")
    good_requests = sum(not result.problems for result in requests)
    good_reports = sum(not result.problems for result in reports)
    books = "DISAGREE" if problems else "agree"
    print_line(
        f"{good_requests} of {len(requests)} requests and {good_reports} of {len(reports)} failure reports"
        f" ended as expected; the books {books}."
    )
    return not problems and (good_requests, good_reports) == (len(requests), len(reports))


async def play(services: Services, *, once: bool) -> bool:
    """Send the day, then (without `once`) wait until Ctrl-C. Raises StartFailed if the broker ends."""
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
    as_expected = await send_day(services)
    if not once:
        print_invitation(services)
        await asyncio.Event().wait()
    return as_expected


def print_invitation(services: Services) -> None:
    """Print what can be tried now, and write the files for it."""
    exports = "".join(f"{name}='{value}'\n" for name, value in services.environment.items())
    with os.fdopen(os.open(FOLDER / "env", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(exports)
    body = {"cpr": "0101364001", "jobcenterkode": "90001", "kontaktgruppe": "2"}
    example = FOLDER / "example.jsonl"
    example.write_text(json.dumps({"type": "query.offers.v1", "body": body}) + "\n", encoding="utf-8")
    files = f"--config {CONFIG.relative_to(ROOT)} --directory {DIRECTORY.relative_to(ROOT)}"
    print_line(
        f"""
Everything keeps running until Ctrl-C. Open in a browser:
  Jobnet           {services.jobnet_url}/ book as an invented citizen (in Danish)
  switches         {services.jobnet_url}/sandbox make a system slow, silent or broken; the suppliers' inboxes
  console          {login_link(services)}
                   logs in once, within one hour; then {services.console_url}/
In a terminal:
  RabbitMQ         {services.amqp_url}
  sandbox          {services.desk_url}/ all systems, {services.desk_url}/birk/_control/books the meetings of one
                   {services.desk_url}/fyrtaarn/_control/inbox the reports that a supplier received
  broker           {services.health_url}/readyz its readiness, {services.health_url}/metrics its metrics
  broker's log     {services.broker.log.relative_to(ROOT)}
Send a request by hand, in another terminal:
  set -a; . {FOLDER.relative_to(ROOT)}/env; set +a
  .venv/bin/jobnet-broker {files} send {example.relative_to(ROOT)}
Make a booking system answer 503 to the next two calls, then send the request again:
  curl -d '{{"operation": "any", "action": "status", "status": 503, "times": 2}}' \\
    {services.desk_url}/birk/_control/script
"""
    )


def main() -> int:
    """Exit codes: 0 all as expected; 1 something was not, or did not start (a sentence says which); 130 Ctrl-C."""
    options = argparse.ArgumentParser(prog="make run", description=__doc__)
    options.add_argument("--once", action="store_true", help="end after the results")
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
