"""Gets every program of `make run` or `make test` ready before anything starts: `python -m scripts.prepare run|test`.

Programs that this machine lacks are unpacked into .local/ (see debian.py). Then the shared libraries of all programs
are looked up; the missing ones are named in one sentence, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts import playwright_driver, postgres, promtool_dist
from scripts.chromium_dist import chromium
from scripts.nginx_dist import nginx
from scripts.processes import StartFailed, say
from scripts.rabbitmq_dist import installation
from scripts.shared_libraries import missing

# They have hundreds of modules that need only the C library; looking them all up would take two seconds.
UNASKED = ("mypy", "mypyc")


@dataclass(frozen=True)
class Part:
    """Programs (or compiled modules) that belong together, and the variables that their environment needs."""

    name: str
    files: Sequence[Path]
    environment: Mapping[str, str] = field(default_factory=dict)


def packages() -> Part:
    """The compiled modules of the installed Python packages."""
    site = Path(sysconfig.get_path("platlib"))
    modules = [*site.glob("**/*.cpython-*.so"), *site.glob("**/*.abi3.so")]
    asked = [module for module in modules if module.relative_to(site).parts[0] not in UNASKED]
    return Part("a Python package", sorted(asked))


def postgresql() -> Part:
    """The programs of PostgreSQL's wheel that are started."""
    names = ("postgres", "initdb", "psql", "pg_isready")
    return Part("PostgreSQL", [postgres.binaries() / name for name in names])


def rabbitmq() -> Part:
    """Erlang's programs, and its module that needs OpenSSL."""
    found = installation()
    return Part("RabbitMQ", found.binaries(), found.environment())


def browser() -> Part:
    found = chromium()
    return Part("Chromium", [Path(found.program)], found.environment)


def driver() -> Part:
    return Part("Playwright", [playwright_driver.node()], playwright_driver.environment())


def web_server() -> Part:
    program, environment = nginx()
    return Part("nginx", [Path(program)], environment)


def prometheus() -> Part:
    server, environment = promtool_dist.prometheus()
    tool, _ = promtool_dist.promtool()
    return Part("Prometheus", [Path(server), Path(tool)], environment)


RUN: tuple[Callable[[], Part], ...] = (packages, postgresql)
TEST: tuple[Callable[[], Part], ...] = (*RUN, driver, browser, web_server, prometheus)


def parts(goal: str) -> Iterator[Part]:
    """The parts that `goal` starts; a part that this machine lacks is unpacked first. Raises StartFailed."""
    for part in TEST if goal == "test" else RUN:
        yield part()
    if not os.environ.get("AMQP_URL"):
        yield rabbitmq()


def check(found: Sequence[Part]) -> None:
    """Raises StartFailed with one sentence that names every missing library."""
    needs = [
        f"{library} ({part.name}: {file.name})"
        for part in found
        for library, file in missing(part.files, part.environment).items()
    ]
    if needs:
        raise StartFailed(
            f"This machine lacks shared libraries: {', '.join(needs)}; install the packages that hold them."
        )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("goal", choices=("run", "test"))
    try:
        check(list(parts(options.parse_args().goal)))
    except StartFailed as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
