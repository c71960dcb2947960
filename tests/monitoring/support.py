"""Reads the monitoring files for tests: alerts, queries, names of metrics."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.health.metrics import HISTOGRAM, METRICS
from scripts.processes import ROOT
from scripts.promtool_dist import promtool

FOLDER = ROOT / "monitoring"
RULES = FOLDER / "prometheus" / "rules.yml"
RULES_TEST = RULES.with_name("rules_test.yml")
DASHBOARD = FOLDER / "grafana" / "jobnet-broker.json"
RUNBOOK = ROOT / "docs" / "operations.md"

HISTOGRAM_ENDS = ("_bucket", "_sum", "_count")


@dataclass(frozen=True)
class Alert:
    """An alert of rules.yml."""

    name: str
    severity: str
    runbook: str


def alerts() -> list[Alert]:
    """Every alert, in the order of the file."""
    blocks = re.split(r"^ *- alert: ", RULES.read_text(), flags=re.MULTILINE)[1:]
    return [
        Alert(block.split()[0], _found(r"severity: (\w+)", block), _found(r"runbook: (\S+)", block))
        for block in blocks
    ]


def _found(pattern: str, block: str) -> str:
    match = re.search(pattern, block)
    assert match, f"no {pattern} in {block}"
    return match[1]


def queries() -> Iterator[tuple[str, str]]:
    """(title, expression) of every panel of the dashboard, with the variables of Grafana filled in."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


def expressions() -> str:
    """The text of all rules and all queries of the dashboard."""
    return "\n".join([RULES.read_text(), *(expression for _, expression in queries())])


def asked_for() -> set[str]:
    """The names of the broker's metrics in rules and dashboard."""
    return set(re.findall(r"\bjobnet_[a-z_]+\b", expressions()))


def exported() -> set[str]:
    """The names of the metrics that a worker exports."""
    names: set[str] = set()
    for row in METRICS:
        ends = HISTOGRAM_ENDS if row.kind is HISTOGRAM else ("",)
        names |= {f"jobnet_{row.name}{end}" for end in ends}
    return names


def run_promtool(*words: str, folder: Path = RULES.parent) -> str:
    """Run promtool and return its output. A non-zero exit code fails the test."""
    program, environment = promtool()
    done = subprocess.run(
        [program, *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
