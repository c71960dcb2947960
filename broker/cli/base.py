"""Shared by all commands: configuration, error messages, options, and output as tables or JSON.

Tables are for people, JSON is for programs. Neither contains personal data.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from broker import ops
from broker.errors import BrokerError
from broker.ops import Actor, login_name
from config.checks import problems
from config.directory import Directory, load_directory
from config.load import load
from config.settings import Settings
from config.sources import ConfigProblem

T = TypeVar("T")
FILE = click.Path(dir_okay=False, path_type=Path)
EXIT_MISTAKE = 2
BARS = " ▁▂▃▄▅▆▇█"


class Mistake(click.ClickException):
    """The command line or the configuration is wrong. Printed without a traceback; exit code 2."""

    exit_code = EXIT_MISTAKE


class CommandFailed(click.ClickException):
    """The command was valid but failed. Printed without a traceback; exit code 1."""

    exit_code = 1


class Configuration:
    """Settings and directory named by the options and the environment, read when first needed."""

    def __init__(self, config: Path | None, directory: Path | None) -> None:
        self._config = config
        self._directory = directory

    def settings(self) -> Settings:
        """Raises Mistake, which names every invalid key."""
        try:
            settings = load(self._config)
        except ConfigProblem as problem:
            raise Mistake(problem_list(problem.problems)) from None
        if self._directory is not None:
            file = settings.directory.model_copy(update={"file": self._directory.resolve()})
            settings = settings.model_copy(update={"directory": file})
        return settings

    @property
    def settings_file(self) -> Path | None:
        """The settings file that the command line names."""
        return self._config

    def directory(self, settings: Settings, *, to_run: bool = False) -> Directory:
        """The directory, checked together with the settings. Raises Mistake, which names every invalid key.

        `to_run`: the secrets and files that it names are needed too. Other commands run where these are not.
        """
        try:
            directory = load_directory(settings.directory.file)
        except ConfigProblem as problem:
            raise Mistake(problem_list(problem.problems)) from None
        found = problems(settings, directory)
        if to_run:
            # Imported here because the other commands need no TLS.
            from broker.clients.certificates import setup_problems

            found += setup_problems(directory)
        if found:
            raise Mistake(problem_list(found))
        return directory


def problem_list(sentences: list[str] | tuple[str, ...]) -> str:
    """Problems of the configuration as text for people, one on each line."""
    return "the configuration cannot be used:\n" + "\n".join(f"  - {sentence}" for sentence in sentences)


# -- options and decorators of commands -----------------------------------------------------------------------------

operator_option = click.option("--as", "name", show_default="login name", help="Operator name.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Maximum number of rows."
)


def asynchronously(function: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
    """Run a command's coroutine. BrokerError, OSError and timeouts become one sentence and exit code 1."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> T:
        try:
            return asyncio.run(function(*args, **kwargs))
        except (BrokerError, OSError, TimeoutError) as error:
            raise CommandFailed(str(error) or type(error).__name__) from None

    return run


def with_operations(function: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
    """Run a command's coroutine with open `Operations` as its first argument."""

    @click.pass_obj
    @asynchronously
    @wraps(function)
    async def run(configuration: Configuration, *args: Any, **kwargs: Any) -> T:
        async with ops.open_operations(configuration.settings()) as operations:
            return await function(operations, *args, **kwargs)

    return run


def acting(function: Callable[..., T]) -> Callable[..., T]:
    """Add the options --reason and --as; the command gets them as `actor`."""

    @click.option("--reason", "-m", required=True, help="Reason, kept in the operators' log.")
    @operator_option
    @wraps(function)
    def run(*args: Any, name: str | None, reason: str, **kwargs: Any) -> T:
        return function(*args, actor=actor_of(name, reason), **kwargs)

    return run


def actor_of(name: str | None, reason: str) -> Actor:
    """The operator and the reason. Raises CommandFailed if one is empty, too long or contains a CPR number."""
    try:
        return Actor(name if name is not None else login_name(), reason)
    except (BrokerError, OSError) as error:
        raise CommandFailed(str(error)) from None


# -- output ----------------------------------------------------------------------------------------------------------


def print_json(value: object) -> None:
    """One line of JSON."""
    click.echo(json.dumps(value, default=str, ensure_ascii=False))


def print_facts(facts: dict[str, Any], as_json: bool = False) -> None:
    """One object: as JSON, or as a table with a row for each field that is not None."""
    if as_json:
        print_json(facts)
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, str(value))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows as a table; prints nothing if there are none."""
    if not rows:
        return
    table = Table(*rows[0].keys(), box=None)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_rows(rows: Sequence[Any], as_json: bool = False, columns: str = "") -> None:
    """Dataclasses as JSON with all fields, or as a table of `columns` (names separated by spaces)."""
    facts = [asdict(row) for row in rows]
    if as_json:
        print_json(facts)
    else:
        print_columns(facts, columns)


def print_columns(facts: Sequence[dict[str, Any]], columns: str = "") -> None:
    """A table of `columns`, or of all fields if empty. Without rows, standard error says `none`."""
    names = columns.split() or (list(facts[0]) if facts else [])
    print_table([{name: shown(row[name]) for name in names} for row in facts])
    if not facts:
        click.echo("none", err=True)


def shown(value: object) -> object:
    """A value as a table shows it: times without fractions of a second."""
    return value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else value


def sparkline(counts: Sequence[int]) -> str:
    """Counts as a row of bars, scaled to the highest count."""
    highest = max(counts, default=0)
    return "".join(BARS[0 if not count else 1 + (len(BARS) - 2) * count // highest] for count in counts)
