"""The command `jobnet-broker`: a skin over the parts, with readable mistakes and honest exit codes.

0 well; 1 it did not work (the sentence says what); 2 the command or the configuration is wrong.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from broker import __version__
from broker.cli.base import FILE, CommandFailed, Configuration, Mistake, asynchronously, show_rows
from broker.cli.console_commands import console
from broker.cli.ledger_commands import LEDGER_COMMANDS
from broker.cli.overview_commands import FIGURES_COMMANDS
from broker.cli.report_commands import COMMANDS
from broker.errors import BrokerError
from broker.telemetry.log import configure
from config.checks import notices
from config.settings import generate_keys


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
        from broker.supervisor import supervise  # not needed by the worker itself

        sys.exit(supervise(workers, settings))
    from broker.app import serve

    try:
        sys.exit(serve(settings, directory))
    except (BrokerError, OSError) as error:
        raise CommandFailed(str(error)) from None


@main.group()
def topology() -> None:
    """Exchanges, queues and users in RabbitMQ."""


@topology.command("apply")
@click.pass_obj
@asynchronously
async def topology_apply(configuration: Configuration) -> None:
    """Declare every exchange, queue and binding; may be repeated."""
    from broker.rabbitmq.declare import apply

    settings = configuration.settings()
    drifted = await apply(settings, configuration.directory(settings).suppliers)
    if drifted:
        raise CommandFailed("\n".join(drifted))
    click.echo("topology: everything is declared")


@topology.command("check")
@click.pass_obj
@asynchronously
async def topology_check(configuration: Configuration) -> None:
    """Say what is missing or different in RabbitMQ; changes nothing."""
    from broker.rabbitmq.declare import check

    settings = configuration.settings()
    wrong = await check(settings, configuration.directory(settings).suppliers)
    if wrong:
        raise CommandFailed("\n".join(wrong))
    click.echo("topology: as it should be")


@topology.command("users")
@click.pass_obj
def topology_users(configuration: Configuration) -> None:
    """Print RabbitMQ definitions with one user and its permissions per role."""
    from broker.rabbitmq.declare import users

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
        raise CommandFailed(str(error)) from None
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
    from broker.cli.send_command import send_lines

    unanswered = await send_lines(configuration.settings(), file, timeout, click.echo)
    if unanswered:
        raise CommandFailed(f"{unanswered} requests got no answer")


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
        raise CommandFailed("no process is ready")


for command in (*COMMANDS, *FIGURES_COMMANDS):
    main.add_command(command)
main.add_command(console)
for command in LEDGER_COMMANDS:
    ledger.add_command(command)
