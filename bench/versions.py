"""What was measured on what: versions, cores and memory; no names. And how busy the machine was with others."""

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

OURS = ("aio-pika", "aiormq", "aiohttp", "asyncpg", "pydantic", "uvloop")
THEIRS = ("faststream", "dramatiq", "celery", "kombu", "pika", "requests", "aio-pika", "aiohttp")
NOISY = 0.05
"""From this part of the machine's time in other hands the document says that it was noisy."""
QUIET_S = 3.0


def busy_elsewhere() -> float:
    """The part of all cores that others use, before anything of ours runs."""
    return float(psutil.cpu_percent(interval=QUIET_S)) / 100


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
    }


def versions(servers: Servers) -> dict[str, Any]:
    ask = f"import json; from importlib.metadata import version as v; print(json.dumps({{n: v(n) for n in {THEIRS!r}}}))"
    theirs = subprocess.run([PYTHON, "-c", ask], capture_output=True, text=True, check=True).stdout
    overview = servers.rabbit.api("GET", "/overview")
    return {
        "python": platform.python_version(),
        "rabbitmq": overview["rabbitmq_version"],
        "erlang": overview["erlang_version"],
        "postgresql": servers.postgres.psql("SHOW server_version"),
        "jobnet-broker": version("jobnet-broker"),
        **{name: version(name) for name in OURS},
        "others": json.loads(theirs),
    }
