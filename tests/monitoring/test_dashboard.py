"""The dashboard and the rules during a run of the sample day, evaluated by the distribution's Prometheus."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from scripts.processes import Kept, free_port, wait_until
from scripts.promtool_dist import prometheus
from tests.monitoring.support import RULES, asked_for, exported, queries
from tests.support import the_only_day

DAY = [sys.executable, "-m", "sandbox.play", "--once"]
NOT_IN_A_DAY = {"jobnet_certificate_expiry_timestamp_seconds"}
"""The sandbox uses plain HTTP, so its directory names no certificates."""


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus server; `began` is its start in seconds since the epoch."""

    url: str
    began: float

    def get(self, path: str, **query: object) -> Any:
        with urlopen(f"{self.url}{path}?{urlencode(query)}", timeout=30) as response:  # noqa: S310 - on this machine
            return json.load(response)["data"]

    def values(self, expression: str) -> list[float]:
        """Every value of the expression since the start of the server."""
        asked = {"query": expression, "start": self.began, "end": time.time(), "step": 1}
        found = self.get("/api/v1/query_range", **asked)["result"]
        numbers = [float(text) for series in found for _, text in series["values"]]
        return [number for number in numbers if not math.isnan(number)]


@contextmanager
def scraping(port: int, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus server with the rules, which scrapes this port every second."""
    program, environment = prometheus()
    own = free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "jobnet-broker", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        ],
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{own}",
    ]
    log = folder / "prometheus.log"
    server = Kept(command, log=log, env=os.environ | environment, grace_s=5)
    url = f"http://127.0.0.1:{own}"
    try:
        wait_until(lambda: _ready(url), server, timeout_s=60, what="Prometheus", log=log)
        yield Prometheus(url, time.time())
    finally:
        server.stop()


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/-/ready", timeout=5) as response:  # noqa: S310 - on this machine
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus after it has scraped a broker during a whole sample day."""
    port = free_port()
    changes = {"JOBNET_BROKER__HEALTH__PORT": str(port), "JOBNET_BROKER__HEALTH__FIGURES_EVERY_SECONDS": "1"}
    with scraping(port, tmp_path_factory.mktemp("prometheus")) as watching:
        with the_only_day():
            done = subprocess.run(
                DAY, env=os.environ | changes, capture_output=True, text=True, timeout=380, check=False
            )
        assert done.returncode == 0, done.stdout + done.stderr
        yield watching


pytestmark = [pytest.mark.integration, pytest.mark.timeout(450)]


def test_every_metric_of_rules_and_dashboard_existed(day: Prometheus) -> None:
    seen = set(day.get("/api/v1/label/__name__/values"))
    assert asked_for() - NOT_IN_A_DAY <= seen
    assert exported() - NOT_IN_A_DAY <= seen


def test_every_query_of_the_dashboard_returns_data(day: Prometheus) -> None:
    empty = [f"{title}: {expression}" for title, expression in queries() if not day.values(expression)]
    assert empty == []


def test_prometheus_can_evaluate_every_rule(day: Prometheus) -> None:
    rules = [rule for group in day.get("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, [r for r in rules if r["health"] != "ok"]


def test_the_metrics_show_the_day(day: Prometheus) -> None:
    assert max(day.values("sum(jobnet_requests_total)")) >= 439
    assert max(day.values('sum(jobnet_answers_total{status="done"})')) > 100
    assert max(day.values("max(jobnet_conservation_gaps)")) == 0
