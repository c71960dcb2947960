"""Two versions of the broker side by side, run in turns: what an optimisation gains, on a machine that is never quiet.

`python -m bench pair TREE [ROUNDS]`: TREE is another checkout (a git worktree); this one is the other contestant.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from bench.lab import Lab
from bench.rounds import Load, Run, loaded
from bench.teams import TEAMS, Setting


def pair(lab: Lab, trees: dict[str, Path], rounds: int, count: int) -> dict[str, list[Run]]:
    """Runs of each tree, one after the other, in changing order."""
    runs: dict[str, list[Run]] = {name: [] for name in trees}
    team = TEAMS["jobnet-broker"]
    for number in range(rounds):
        for name in list(trees)[:: 1 if number % 2 else -1]:
            setting = Setting(root=trees[name])
            with lab.place() as place, team.at_work(place, setting) as running:
                runs[name].append(loaded(place, team, running, Load(count=count)))
    return runs


def table(runs: dict[str, list[Run]]) -> str:
    """Medians, and the gain of each against the first by the median of the rounds' ratios."""
    first = next(iter(runs.values()))
    lines = []
    for name, its in runs.items():
        ratio = median(a.own_cpu_us / b.own_cpu_us for a, b in zip(first, its, strict=True))
        rate = median(b.rate / a.rate for a, b in zip(first, its, strict=True))
        cpu, whole = median(r.own_cpu_us for r in its), median(sum(r.cpu_us.values()) for r in its)
        lines.append(f"{name:24} {median(r.rate for r in its):7.0f}/s  {cpu:6.0f} µs own, {whole:6.0f} µs with its servers"
                     f"  CPU x{1 / ratio:.3f}  rate x{rate:.3f}")
    return "\n".join(lines)
