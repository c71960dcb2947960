"""`python -m bench COMMAND [--quick]`: the commands behind `make bench`. Each rewrites its part of docs/benchmarks.*.

throughput   every contestant at full load and at half of it (rates, CPU, times, memory)
latency      the same, with longer loads: the tails need more messages
delivery     failure reports: ours and a bare loop
curves       workers, prefetch, size, the ledger's price, one dead of twenty
backlog      memory beside a million waiting reports, and a million requests that are too old
all          throughput, delivery, curves, backlog: about half an hour; --quick: about four minutes
pair         this version and another checkout in turns: pair ../other [--rounds N]; prints, writes nothing
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
    """How much of everything; `seconds` is what one load lasts about."""

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
"""Bookings a second in the dead system's test, if the full rate was not measured yet."""


def throughput(servers: Servers, size: Size, factor: int = 1) -> dict[str, Any]:
    found = contestants(servers, size.rounds, size.seconds * factor)
    summaries = {name: summary(rounds) for name, rounds in found.items()}
    return {"contestants": summaries, "ratios": ratios(found), "window": LoadOptions(0).window}


def latency(servers: Servers, size: Size) -> dict[str, Any]:
    return throughput(servers, size, LATENCY_FACTOR)


def deliveries(servers: Servers, size: Size) -> dict[str, Any]:
    return {"delivery": delivery(servers, size.curve_rounds, size.reports)}


def all_curves(servers: Servers, size: Size) -> dict[str, Any]:
    measured = read_results().get("contestants", {}).get("jobnet-broker", {}).get("messages_per_second")
    rate = measured / 2 if measured else HALF_RATE
    found = {"curves": curves(servers, size.curve_rounds, size.curve_count)}
    dead = dead_system(servers, size.curve_rounds, size.seconds * 2, rate)
    return found | {
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
    parser.add_argument("--rounds", type=int, default=5, help="for pair")
    parser.add_argument("--count", type=int, default=3000, help="for pair: bookings in each run")
    return parser.parse_args()


def measure(command: str, size: Size, quick: bool) -> None:
    busy = busy_elsewhere()
    with running_servers() as servers:
        write_results(
            {"machine": machine(), "versions": versions(servers), "busy_elsewhere": busy, "quick": quick}
        )
        for make in COMMANDS[command]:
            say(f"{make.__name__} …")
            write_results(make(servers, size))
    say(f"written: {TEXT.relative_to(ROOT)}, with its plot and its JSON")


def main() -> int:
    given = options()
    try:
        if given.command == "pair":
            trees = {tree.resolve().name: tree.resolve() for tree in (ROOT, *given.trees)}
            with running_servers() as servers:
                print(table(pair(servers, trees, given.rounds, given.count)))
        else:
            measure(given.command, QUICK if given.quick else FULL, given.quick)
    except StartFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
