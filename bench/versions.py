"""The versions, cores and memory of a benchmark, and the load of other processes. No host names."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import version
from typing import Any

import psutil

from bench.launch import PYTHON
from bench.servers import Servers

BROKER_PACKAGES = ("aio-pika", "aiormq", "aiohttp", "asyncpg", "pydantic", "uvloop")
OTHER_PACKAGES = ("faststream", "dramatiq", "celery", "kombu", "pika", "requests", "aio-pika", "aiohttp")
NOISY = 0.05
"""If other processes use more than this part of all cores, the document calls the machine noisy."""
QUIET_S = 3.0


def busy_elsewhere() -> float:
    """The part of all cores that other processes use, measured before the benchmark starts."""
    return float(psutil.cpu_percent(interval=QUIET_S)) / 100


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
    }


def versions(servers: Servers) -> dict[str, Any]:
    script = (
        "import json; from importlib.metadata import version as v;"
        f"print(json.dumps({{n: v(n) for n in {OTHER_PACKAGES!r}}}))"
    )
    others = subprocess.run([PYTHON, "-c", script], capture_output=True, text=True, check=True).stdout
    overview = servers.rabbit.api("GET", "/overview")
    return {
        "python": platform.python_version(),
        "rabbitmq": overview["rabbitmq_version"],
        "erlang": overview["erlang_version"],
        "postgresql": servers.postgres.psql("SHOW server_version"),
        "jobnet-broker": version("jobnet-broker"),
        **{name: version(name) for name in BROKER_PACKAGES},
        "others": json.loads(others),
    }
