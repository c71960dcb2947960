"""`make faults`: run seeds of the fault matrix, print each plan and what came of it, write docs/reliability.*.

Exit code 0 only if nothing was lost, duplicated, late, leaked or untrue without an explanation by name.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
from pathlib import Path

from scripts.processes import LOCAL, ROOT, private_folder, say
from tests.faults.audit import SORTS
from tests.faults.grounds import Grounds, own_mounts
from tests.faults.matrix import BY_NAME, KINDS, Plan, plan_of
from tests.faults.report import write
from tests.faults.run import Result, run

REQUESTS = 400
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
    mounts = own_mounts()  # before there is a second thread
    whole = chosen.seed is None and not chosen.faults
    out = chosen.out or (ROOT / "docs" if whole else None)
    with private_folder(LOCAL / "faults") as folder:
        return _all(plans, folder, mounts, out)


def _all(plans: list[Plan], folder: Path, mounts: bool, out: Path | None) -> int:
    results: list[Result] = []
    with Grounds(folder, mounts=mounts) as grounds:
        say(f"the ledger's disk will be full by {grounds.disk.how}")
        for plan in plans:
            print("\n".join(plan.lines()), flush=True)
            stage = folder / f"seed-{plan.seed}"
            result = asyncio.run(run(plan, grounds, stage))
            results.append(result)
            _tell(result)
            if result.audit.findings:
                _keep(stage, grounds)
            if out is not None:
                write(results, grounds.disk.how, out)
    bad = sum(len(result.audit.findings) for result in results)
    if out is not None:
        say(f"written: {out / 'reliability.md'}, {out / 'reliability.json'}")
    say(f"{len(results)} seeds, {bad} findings that nothing explains")
    return 1 if bad else 0


def _tell(result: Result) -> None:
    counts = ", ".join(f"{sort.replace('_', ' ')} {result.audit.count(sort)}" for sort in SORTS)
    print(f"  {result.seconds:.0f} s: {dict(result.audit.outcomes)}; {counts}", flush=True)
    for what, count in result.audit.explained.most_common():
        print(f"    explained: {count} x {what}")
    for sentence in (*result.audit.findings, *result.notes):
        print(f"    ! {sentence}")
    sys.stdout.flush()


def _keep(stage: Path, grounds: Grounds) -> None:
    """The logs of a seed that found something, for a look afterwards."""
    goal = KEPT / stage.name
    shutil.rmtree(goal, ignore_errors=True)
    shutil.copytree(stage, goal)
    for name, path in grounds.logs().items():
        if path.exists():
            shutil.copy(path, goal / f"{name}.log")
    say(f"its logs are kept in {goal}")


if __name__ == "__main__":
    sys.exit(main())
