"""Compares versions of the broker that run at the same time, to measure an optimisation on a machine with other load.

`python -m bench pair TREE …`: each TREE is another checkout (a git worktree); this one is the base. All share one core
at the same time, so other load affects all of them. Only their CPU time per booking can be compared.
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
    """Put `rounds` loads on each tree, on all trees at the same time."""
    with ExitStack() as stack, ThreadPoolExecutor(len(trees)) as threads:
        running = {}
        for name, tree in trees.items():
            workspace = stack.enter_context(servers.workspace())
            running[name] = workspace, stack.enter_context(BROKER.running(workspace, Setting(root=tree)))
        runs: dict[str, list[Run]] = {name: [] for name in trees}
        for number in range(rounds):
            load = LoadOptions(count=count, first=number * count)
            futures = {
                name: threads.submit(measure_run, workspace, BROKER, started, load)
                for name, (workspace, started) in running.items()
            }
            for name, future in futures.items():
                runs[name].append(future.result())
    return runs


def table(runs: Mapping[str, list[Run]]) -> str:
    """The median CPU time of each tree, and its ratio to the first tree (the median of the ratios in each round)."""
    first = next(iter(runs.values()))
    lines = []
    for name, own_runs in runs.items():
        ratio = median(b.own_cpu_us / a.own_cpu_us for a, b in zip(first, own_runs, strict=True))
        cpu = median(run.own_cpu_us for run in own_runs)
        values = " ".join(f"{run.own_cpu_us:.0f}" for run in own_runs)
        lines.append(f"{name:20} {cpu:6.0f} µs a booking  x{ratio:.3f}  ({values})")
    return "\n".join(lines)
