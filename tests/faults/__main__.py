"""`make faults`: run seeds of the fault matrix, print each plan and what came of it, write docs/reliability.*.

Exit code 0 only if nothing was lost, duplicated, late, leaked or untrue without an explanation by name.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path

from scripts.processes import LOCAL, ROOT, private_folder, say
from tests.faults.findings import SORTS
from tests.faults.matrix import BY_NAME, KINDS, Plan, plan_of
from tests.faults.report import write
from tests.faults.run import Result, run
from tests.faults.servers import Servers, faketime_library, own_mounts

REQUESTS = 400
TRIES = 2
KEPT = LOCAL / "faults-kept"


def _arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    options.add_argument("--seeds", type=int, default=len(KINDS), help="how many, from --first on")
    options.add_argument("--first", type=int, default=1, help="the first seed")
    options.add_argument("--seed", type=int, help="this one only; writes no documents unless --out is given")
    options.add_argument("--requests", type=int, default=REQUESTS, help="for each seed")
    options.add_argument("--faults", nargs="+", choices=sorted(BY_NAME), help="these instead of the seed's")
    options.add_argument("--plan", action="store_true", help="print the plans and run nothing")
    options.add_argument("--out", type=Path, help="where to write the documents; docs/ for a whole matrix")
    return options.parse_args()


def main() -> int:
    """The process."""
    chosen = _arguments()
    seeds = [chosen.seed] if chosen.seed is not None else range(chosen.first, chosen.first + chosen.seeds)
    plans = [plan_of(seed, chosen.requests, chosen.faults) for seed in seeds]
    if chosen.plan:
        print("\n".join(line for plan in plans for line in plan.lines()))
        return 0
    for noisy in ("aio_pika", "aiormq", "asyncio"):  # the frontends' connections break, too
        logging.getLogger(noisy).setLevel(logging.CRITICAL + 1)
    if any(plan.with_false_clock for plan in plans):
        faketime_library()  # fetched now, not in the middle of a run
    mounts = own_mounts()  # before there is a second thread
    whole = chosen.seed is None and not chosen.faults
    out = chosen.out or (ROOT / "docs" if whole else None)
    with private_folder(LOCAL / "faults") as folder:
        return _all(plans, folder, mounts, out)


def _all(plans: list[Plan], folder: Path, mounts: bool, out: Path | None) -> int:
    results: list[Result] = []
    with ExitStack() as stack:
        ground = _Ground(stack, folder, mounts)
        for plan in plans:
            print("\n".join(plan.lines()), flush=True)
            result = ground.play(plan)
            if result is None:
                continue
            results.append(result)
            _tell(result)
            if out is not None:
                write(results, ground.now.disk.how, out)
        how = ground.now.disk.how
    bad = sum(len(result.audit.findings) for result in results)
    if out is not None:
        say(f"written: {out / 'reliability.md'}, {out / 'reliability.json'}")
    not_run = len(plans) - len(results)
    say(
        f"{len(results)} seeds ({not_run} could not be run), {bad} findings that nothing explains; disk full by {how}"
    )
    return 1 if bad or not_run else 0


class _Ground:
    """The servers for the seeds; new ones when a seed could not be played to its end on the old ones."""

    def __init__(self, stack: ExitStack, folder: Path, mounts: bool) -> None:
        self._stack = stack
        self._folder = folder
        self._mounts = mounts
        self._number = 0
        self.now = self._fresh()

    def _fresh(self) -> Servers:
        self._stack.close()
        self._number += 1
        servers = Servers(self._folder / f"ground-{self._number}", mounts=self._mounts)
        return self._stack.enter_context(servers)

    def play(self, plan: Plan) -> Result | None:
        """One seed; once more if the tool itself failed, and None if it failed again."""
        for attempt in range(TRIES):
            folder = self._folder / f"seed-{plan.seed}-{attempt + 1}"
            try:
                result = asyncio.run(run(plan, self.now, folder))
                if result.audit.findings or result.notes:
                    _keep(folder, self.now)
                return result
            except (
                Exception
            ):  # a server that did not come up, a tool of ours: not the broker's fault, but never silent
                traceback.print_exc()
                _keep(folder, self.now)
                self.now = self._fresh()
        return None


def _tell(result: Result) -> None:
    counts = ", ".join(f"{sort.replace('_', ' ')} {result.audit.count(sort)}" for sort in SORTS)
    print(f"  {result.seconds:.0f} s: {dict(result.audit.outcomes)}; {counts}", flush=True)
    for what, count in result.audit.explained.most_common():
        print(f"    explained: {count} x {what}")
    for sentence in (*result.audit.findings, *result.notes):
        print(f"    ! {sentence}")
    sys.stdout.flush()


def _keep(folder: Path, servers: Servers) -> None:
    """The logs of a seed that found something, for a look afterwards."""
    goal = KEPT / folder.name
    shutil.rmtree(goal, ignore_errors=True)
    shutil.copytree(folder, goal)
    for name, path in servers.logs().items():
        if path.exists():
            shutil.copy(path, goal / f"{name}.log")
    say(f"its logs are kept in {goal}")


if __name__ == "__main__":
    sys.exit(main())
