"""Versions of the broker side by side at the same time: what an optimisation gains, on a machine that is never quiet.

`python -m bench pair TREE …`: each TREE is another checkout (a git worktree); this one is the base. All share one core and
the same moments, so that what disturbs one disturbs all; only their CPU time for each booking can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.launch import CONTESTANTS, Setting
from bench.runs import LoadOptions, Run, measure_run
from bench.servers import Servers

BROKER = CONTESTANTS["jobnet-broker"]


def pair(servers: Servers, trees: Mapping[str, Path], rounds: int, count: int) -> dict[str, list[Run]]:
    """So many loads of each tree, all trees at once."""
    with ExitStack() as stack, ThreadPoolExecutor(len(trees)) as threads:
        running = {}
        for name, tree in trees.items():
            workspace = stack.enter_context(servers.workspace())
            running[name] = workspace, stack.enter_context(BROKER.running(workspace, Setting(root=tree)))
        runs: dict[str, list[Run]] = {name: [] for name in trees}
        for number in range(rounds):
            load = LoadOptions(count=count, first=number * count)
            under = {
                name: threads.submit(measure_run, p, BROKER, r, load) for name, (p, r) in running.items()
            }
            for name, future in under.items():
                runs[name].append(future.result())
    return runs


def table(runs: Mapping[str, list[Run]]) -> str:
    """Medians, and each one's CPU against the first's: the median of the rounds' ratios."""
    first = next(iter(runs.values()))
    lines = []
    for name, its in runs.items():
        ratio = median(b.own_cpu_us / a.own_cpu_us for a, b in zip(first, its, strict=True))
        cpu = median(run.own_cpu_us for run in its)
        every = " ".join(f"{run.own_cpu_us:.0f}" for run in its)
        lines.append(f"{name:20} {cpu:6.0f} µs a booking  x{ratio:.3f}  ({every})")
    return "\n".join(lines)
