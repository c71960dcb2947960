"""What the commands share: the configuration they read, mistakes in words, and how things are shown.

Tables are for people and JSON for programs; nothing personal is ever in either.
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
    """What a user got wrong, told without a traceback."""

    exit_code = EXIT_MISTAKE


class CommandFailed(click.ClickException):
    """What did not work although the command was right."""

    exit_code = 1


class Configuration:
    """The settings and the directory that the options and the environment name, read when first needed."""

    def __init__(self, config: Path | None, directory: Path | None) -> None:
        self._config = config
        self._directory = directory

    def settings(self) -> Settings:
        """Raises Mistake with every bad key."""
        try:
            settings = load(self._config)
        except ConfigProblem as problem:
            raise Mistake(sentences_of(problem.problems)) from None
        if self._directory is not None:
            file = settings.directory.model_copy(update={"file": self._directory.resolve()})
            settings = settings.model_copy(update={"directory": file})
        return settings

    def directory(self, settings: Settings) -> Directory:
        """The directory, checked together with the settings. Raises Mistake with every bad key."""
        try:
            directory = load_directory(settings.directory.file)
        except ConfigProblem as problem:
            raise Mistake(sentences_of(problem.problems)) from None
        wrong = problems(settings, directory)
        if wrong:
            raise Mistake(sentences_of(wrong))
        return directory


def sentences_of(sentences: list[str] | tuple[str, ...]) -> str:
    """Problems as a person reads them."""
    return "the configuration cannot be used:\n" + "\n".join(f"  - {sentence}" for sentence in sentences)


def asynchronously(function: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
    """Run a command's coroutine; our own errors become one sentence, a refused connection too."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> T:
        try:
            return asyncio.run(function(*args, **kwargs))
        except (BrokerError, OSError, TimeoutError) as error:
            raise CommandFailed(str(error) or type(error).__name__) from None

    return run


def show(facts: dict[str, Any], as_json: bool) -> None:
    """One thing: a JSON object, or a table of its fields."""
    if as_json:
        click.echo(json.dumps(facts, default=str, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, str(value))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def show_rows(rows: list[dict[str, Any]]) -> None:
    """Many things as a table; nothing when there are none."""
    if not rows:
        return
    table = Table(*rows[0].keys(), box=None)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
limit = click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most.")


def by(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that is written into the operators' log."""
    why = click.option("--reason", "-m", required=True, help="Why; kept in the operators' log.")
    who = click.option("--as", "name", help="Who acts; otherwise the login name.")
    return who(why(function))


def actor_of(name: str | None, reason: str) -> Actor:
    """Raises Refusal when nobody is named or no reason is given."""
    return Actor(name if name is not None else login_name(), reason)


def told(rows: list[Any], as_json: bool, columns: str = "") -> None:
    """Dataclasses as JSON with every field, or as a table of some."""
    facts = [asdict(row) for row in rows]
    if as_json:
        click.echo(json.dumps(facts, default=str, ensure_ascii=False))
        return
    told_rows(facts, columns)


def told_rows(facts: list[dict[str, Any]], columns: str = "") -> None:
    """Facts as a table of some."""
    names = columns.split() or (list(facts[0]) if facts else [])
    show_rows([{name: short(row[name]) for name in names} for row in facts])
    if not facts:
        click.echo("none", err=True)


def sparkline(counts: Sequence[int]) -> str:
    """Counts as a row of bars, each as high as its share of the highest."""
    most = max(counts, default=0)
    return "".join(BARS[0 if not count else 1 + (len(BARS) - 2) * count // most] for count in counts)


def short(value: object) -> object:
    return value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else value
