"""`python -m bench COMMAND [--quick]`: the commands behind `make bench`. Each rewrites its part of docs/benchmarks.*.

throughput   every contestant at full load and at half load: rates, CPU, response times, memory
latency      the same with longer loads, because high percentiles need more messages
delivery     delivery of failure reports by the broker and by a bare loop
curves       worker processes, prefetch, request size, cost of the ledger, one dead system of twenty
backlog      memory with a million waiting reports, and with a million expired requests
all          throughput, delivery, curves, backlog: about half an hour; --quick: about four minutes
pair         this version and other checkouts at the same time: pair ../other [--rounds N]; prints only
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.backlog import backlog
from bench.curves import curves, dead_system
from bench.delivery import dead_supplier, delivery
from bench.launch import ROOT
from bench.pair import pair, table
from bench.results import TEXT, read_results, write_results
from bench.runs import LoadOptions, contestants, ratios, summary
from bench.servers import Servers, running_servers
from bench.versions import busy_elsewhere, machine, versions
from scripts.processes import StartFailed, say

LATENCY_FACTOR = 3


@dataclass(frozen=True)
class Size:
    """The size of a benchmark; `seconds` is the approximate length of one load."""

    rounds: int
    seconds: float
    reports: int
    curve_rounds: int
    curve_count: int
    waiting: int
    watch_seconds: float


FULL = Size(
    rounds=5, seconds=8, reports=6000, curve_rounds=2, curve_count=3000, waiting=1_000_000, watch_seconds=60
)
QUICK = Size(
    rounds=1, seconds=4, reports=1000, curve_rounds=1, curve_count=600, waiting=20_000, watch_seconds=5
)
HALF_RATE = 200.0
"""Bookings per second in the test of a dead system, if the full rate has not been measured yet."""


def throughput(servers: Servers, size: Size, factor: int = 1) -> dict[str, Any]:
    results = contestants(servers, size.rounds, size.seconds * factor)
    summaries = {name: summary(rounds) for name, rounds in results.items()}
    return {"contestants": summaries, "ratios": ratios(results), "window": LoadOptions(0).window}


def latency(servers: Servers, size: Size) -> dict[str, Any]:
    return throughput(servers, size, LATENCY_FACTOR)


def deliveries(servers: Servers, size: Size) -> dict[str, Any]:
    return {"delivery": delivery(servers, size.curve_rounds, size.reports)}


def all_curves(servers: Servers, size: Size) -> dict[str, Any]:
    measured = read_results().get("contestants", {}).get("jobnet-broker", {}).get("messages_per_second")
    rate = measured / 2 if measured else HALF_RATE
    results = {"curves": curves(servers, size.curve_rounds, size.curve_count)}
    dead = dead_system(servers, size.curve_rounds, size.seconds * 2, rate)
    return results | {
        "one_dead": {
            "bookings": dead,
            "reports": dead_supplier(servers, size.curve_rounds, size.seconds * 2),
        }
    }


def backlogs(servers: Servers, size: Size) -> dict[str, Any]:
    return {"backlog": backlog(servers, size.waiting, size.watch_seconds)}


COMMANDS: dict[str, tuple[Callable[[Servers, Size], dict[str, Any]], ...]] = {
    "throughput": (throughput,),
    "latency": (latency,),
    "delivery": (deliveries,),
    "curves": (all_curves,),
    "backlog": (backlogs,),
    "all": (throughput, deliveries, all_curves, backlogs),
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=[*COMMANDS, "pair"])
    parser.add_argument("trees", nargs="*", type=Path, help="other checkouts, for pair")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5, help="for pair: number of rounds")
    parser.add_argument("--count", type=int, default=3000, help="for pair: bookings in each run")
    return parser.parse_args()


def measure(command: str, size: Size, quick: bool) -> None:
    busy = busy_elsewhere()
    with running_servers() as servers:
        write_results(
            {"machine": machine(), "versions": versions(servers), "busy_elsewhere": busy, "quick": quick}
        )
        for part in COMMANDS[command]:
            say(f"{part.__name__} …")
            write_results(part(servers, size))
    say(f"written: {TEXT.relative_to(ROOT)}, with its plot and its JSON")


def main() -> int:
    arguments = options()
    try:
        if arguments.command == "pair":
            trees = {tree.resolve().name: tree.resolve() for tree in (ROOT, *arguments.trees)}
            with running_servers() as servers:
                print(table(pair(servers, trees, arguments.rounds, arguments.count)))
        else:
            measure(arguments.command, QUICK if arguments.quick else FULL, arguments.quick)
    except StartFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
