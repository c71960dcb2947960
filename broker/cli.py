"""The command `jobnet-broker`: a skin over the parts, with readable mistakes and honest exit codes.

0 well; 1 it did not work (the sentence says what); 2 the command or the configuration is wrong.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import click
from rich.console import Console
from rich.table import Table

from broker import __version__
from broker.errors import BrokerError
from broker.log import configure
from config.dangers import notices, problems
from config.directory import Directory, load_directory
from config.settings import ConfigProblem, Settings, generate_keys, load

T = TypeVar("T")
FILE = click.Path(dir_okay=False, path_type=Path)
EXIT_MISTAKE = 2


class Mistake(click.ClickException):
    """What a user got wrong, told without a traceback."""

    exit_code = EXIT_MISTAKE


class DidNotWork(click.ClickException):
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
            raise Mistake(told(problem.problems)) from None
        if self._directory is not None:
            file = settings.directory.model_copy(update={"file": self._directory.resolve()})
            settings = settings.model_copy(update={"directory": file})
        return settings

    def directory(self, settings: Settings) -> Directory:
        """The directory, checked together with the settings. Raises Mistake with every bad key."""
        try:
            directory = load_directory(settings.directory.file)
        except ConfigProblem as problem:
            raise Mistake(told(problem.problems)) from None
        wrong = problems(settings, directory)
        if wrong:
            raise Mistake(told(wrong))
        return directory


def told(sentences: list[str] | tuple[str, ...]) -> str:
    """Problems as a person reads them."""
    return "the configuration cannot be used:\n" + "\n".join(f"  - {sentence}" for sentence in sentences)


def asynchronously(function: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
    """Run a command's coroutine; our own errors become one sentence, a refused connection too."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> T:
        try:
            return asyncio.run(function(*args, **kwargs))
        except (BrokerError, OSError, TimeoutError) as error:
            raise DidNotWork(str(error) or type(error).__name__) from None

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", type=FILE, help="Settings file with the differences from the defaults.")
@click.option(
    "--directory", type=FILE, help="Directory of jobcenters; otherwise directory.file of the settings."
)
@click.version_option(__version__, prog_name="jobnet-broker")
@click.pass_context
def main(context: click.Context, config: Path | None, directory: Path | None) -> None:
    """Carries booking requests from Jobnet to jobcenters' systems and answers each once, honestly.

    Every setting can also be given as JOBNET_BROKER__SECTION__KEY; the manual is config/default.toml.
    """
    configure("auto", "warning")
    context.obj = Configuration(config, directory)


@main.command()
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes to run.")
@click.pass_obj
def run(configuration: Configuration, workers: int) -> None:
    """Carry requests until SIGTERM or Ctrl-C; SIGHUP reads the directory again."""
    settings = configuration.settings()
    directory = configuration.directory(settings)
    configure(settings.log.format, settings.log.level)
    if workers > 1:
        from broker.workers import supervise  # not needed by the worker itself

        sys.exit(supervise(workers, settings))
    from broker.app import serve

    sys.exit(serve(settings, directory))


@main.group()
def topology() -> None:
    """Exchanges, queues and users in RabbitMQ."""


@topology.command("apply")
@click.pass_obj
@asynchronously
async def topology_apply(configuration: Configuration) -> None:
    """Declare every exchange, queue and binding; may be repeated."""
    from broker.topology_ops import apply

    settings = configuration.settings()
    drifted = await apply(settings, configuration.directory(settings).suppliers)
    if drifted:
        raise DidNotWork("\n".join(drifted))
    click.echo("topology: everything is declared")


@topology.command("check")
@click.pass_obj
@asynchronously
async def topology_check(configuration: Configuration) -> None:
    """Say what is missing or different in RabbitMQ; changes nothing."""
    from broker.topology_ops import check

    settings = configuration.settings()
    wrong = await check(settings, configuration.directory(settings).suppliers)
    if wrong:
        raise DidNotWork("\n".join(wrong))
    click.echo("topology: as it should be")


@topology.command("users")
@click.pass_obj
def topology_users(configuration: Configuration) -> None:
    """Print RabbitMQ definitions with one user and its permissions per role."""
    from broker.topology_ops import users

    click.echo(json.dumps(users(configuration.settings()), indent=2))


@main.group()
def ledger() -> None:
    """The ledger in PostgreSQL."""


@ledger.command("upgrade")
@click.pass_obj
def ledger_upgrade(configuration: Configuration) -> None:
    """Bring the ledger's tables to this version; may be repeated, old and new processes may run beside it."""
    from broker.ledger import upgrade

    settings = configuration.settings()
    if settings.ledger.dsn is None:
        raise Mistake("ledger.dsn is not set: the embedded ledger upgrades itself when the broker starts")
    try:
        revision = upgrade(settings.ledger.dsn.get_secret_value())
    except (BrokerError, OSError) as error:
        raise DidNotWork(str(error)) from None
    click.echo(f"ledger: at revision {revision}")


@main.group("config")
def config_group() -> None:
    """Settings and keys."""


@config_group.command("check")
@click.pass_obj
def config_check(configuration: Configuration) -> None:
    """Read settings and directory and name every bad key."""
    directory = configuration.directory(configuration.settings())
    for notice in notices(directory):
        click.echo(f"notice: {notice}")
    count = len(directory.jobcenters)
    click.echo(f"configuration: good; {count} jobcenters, {len(directory.booking_systems)} booking systems")


@config_group.command("keys")
def config_keys() -> None:
    """Print a fresh set of keys as environment variables. Keep them where secrets are kept."""
    for name, value in generate_keys().items():
        text = value if isinstance(value, str) else json.dumps(value)
        click.echo(f"JOBNET_BROKER__KEYS__{name.upper()}='{text}'")


@main.command()
@click.argument("file", type=click.File("rb"))
@click.option("--timeout", default=35.0, show_default=True, help="Seconds to wait for each answer.")
@click.pass_obj
@asynchronously
async def send(configuration: Configuration, file: Any, timeout: float) -> None:  # noqa: ASYNC109  the user's option
    """Publish requests from JSON lines ({"type": …, "body": {…}}) and print each answer as a JSON line.

    FILE may be - for standard input. In a body, sentAt and requestId are filled in where they are missing.
    Exit code 1 if any request got no answer.
    """
    from broker.sending import send_lines

    unanswered = await send_lines(configuration.settings(), file, timeout, click.echo)
    if unanswered:
        raise DidNotWork(f"{unanswered} requests got no answer")


@main.command()
@click.argument("request_id", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_obj
@asynchronously
async def trace(configuration: Configuration, request_id: UUID, as_json: bool) -> None:
    """Tell what the ledger knows of one request, without personal data."""
    from broker.ledger import Ledger
    from broker.sealing import Sealer

    settings = configuration.settings()
    async with Ledger.reading(settings, Sealer(settings.keys)) as ledger_:
        story = await ledger_.trace(request_id)
    if story is None:
        raise DidNotWork(f"the ledger knows no request {request_id}")
    show(asdict(story), as_json)


@main.command("open")
@click.argument("system")
@click.pass_obj
@asynchronously
async def open_requests(configuration: Configuration, system: str) -> None:
    """List the open requests that need SYSTEM (at most 100), one id per line: they keep it in the directory."""
    from broker.ledger import Ledger
    from broker.sealing import Sealer

    settings = configuration.settings()
    async with Ledger.reading(settings, Sealer(settings.keys)) as ledger_:
        for request_id, state in await ledger_.open_requests(system):
            click.echo(f"{request_id} {state}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_obj
@asynchronously
async def status(configuration: Configuration, as_json: bool) -> None:
    """Say which processes are alive and ready; exit code 0 if at least one is ready."""
    from broker.ledger import Ledger
    from broker.sealing import Sealer

    settings = configuration.settings()
    async with Ledger.reading(settings, Sealer(settings.keys)) as ledger_:
        workers = await ledger_.workers()
    rows = [asdict(worker) for worker in workers]
    if as_json:
        click.echo(json.dumps(rows, default=str))
    else:
        show_rows(rows)
    if not any(worker.ready and worker.alive for worker in workers):
        raise DidNotWork("no process is ready")


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
