"""The command `jobnet-broker`. Errors are one sentence on standard error, without a traceback.

Exit codes: 0 success; 1 the command failed; 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from broker import __version__
from broker.cli.base import (
    FILE,
    CommandFailed,
    Configuration,
    Mistake,
    asynchronously,
    json_option,
    print_json,
    print_table,
)
from broker.cli.console_commands import console
from broker.cli.ledger_commands import LEDGER_COMMANDS
from broker.cli.overview_commands import OVERVIEW_COMMANDS
from broker.cli.report_commands import REPORT_COMMANDS
from broker.errors import BrokerError
from broker.telemetry.log import configure
from config.checks import notices
from config.settings import generate_keys

NOT_JUDGED = (
    "not judged: whether the servers can be reached (--connect tries them), and whether the other side knows these"
    " addresses, tokens, secrets and certificates"
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", type=FILE, help="Settings file; only what differs from the defaults.")
@click.option("--directory", type=FILE, show_default="directory.file", help="Directory of jobcenters.")
@click.version_option(__version__, prog_name="jobnet-broker")
@click.pass_context
def main(context: click.Context, config: Path | None, directory: Path | None) -> None:
    """Carry booking requests from Jobnet to the jobcenters' booking systems, and answer each request once.

    Every setting can also be given as an environment variable JOBNET_BROKER__SECTION__KEY. The settings are
    described in config/default.toml.
    """
    configure("auto", "warning")
    context.obj = Configuration(config, directory)


@main.command()
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Number of worker processes."
)
@click.pass_obj
def run(configuration: Configuration, workers: int) -> None:
    """Run the broker until SIGTERM or Ctrl-C. SIGHUP reads the directory again."""
    settings = configuration.settings()
    directory = configuration.directory(settings, to_run=True)
    configure(settings.log.format, settings.log.level)
    if workers > 1:
        # Imported here because a worker itself does not need it.
        from broker.supervisor import supervise

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
    """Declare all exchanges, queues and bindings. Safe to repeat."""
    from broker.rabbitmq.declare import apply

    settings = configuration.settings()
    problems = await apply(settings, configuration.directory(settings).suppliers)
    if problems:
        raise CommandFailed("\n".join(problems))
    click.echo("topology: everything is declared")


@topology.command("check")
@click.pass_obj
@asynchronously
async def topology_check(configuration: Configuration) -> None:
    """Print what is missing or different in RabbitMQ. Changes nothing."""
    from broker.rabbitmq.declare import check

    settings = configuration.settings()
    problems = await check(settings, configuration.directory(settings).suppliers)
    if problems:
        raise CommandFailed("\n".join(problems))
    click.echo("topology: as it should be")


@topology.command("users")
@click.pass_obj
def topology_users(configuration: Configuration) -> None:
    """Print RabbitMQ definitions (JSON) with one user and its permissions for each role."""
    from broker.rabbitmq.declare import users

    click.echo(json.dumps(users(configuration.settings()), indent=2))


@main.group("ledger")
def ledger_group() -> None:
    """The ledger in PostgreSQL."""


@ledger_group.command("upgrade")
@click.pass_obj
def ledger_upgrade(configuration: Configuration) -> None:
    """Migrate the ledger's tables to this version. Safe to repeat, and while old and new processes run."""
    from broker.ledger.postgres.versions import upgrade

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
@click.option(
    "--connect", is_flag=True, help="Also try RabbitMQ, PostgreSQL and each system (TCP and TLS only)."
)
@click.pass_obj
@asynchronously
async def config_check(configuration: Configuration, connect: bool) -> None:
    """Check the settings, the directory and the secrets and files that they name, and print every invalid key.

    Prints which files were read, and what cannot be judged from here. Sends no request to any system. Exit code 1 if a
    server cannot be reached with --connect.
    """
    from broker.cli.config_check import sources, tried

    settings = configuration.settings()
    for line in sources(configuration.settings_file, settings):
        click.echo(line)
    directory = configuration.directory(settings, to_run=True)
    for notice in notices(directory):
        click.echo(f"notice: {notice}")
    count = len(directory.jobcenters)
    good = f"configuration: good; {count} jobcenters, {len(directory.booking_systems)} booking systems"
    if not connect:
        click.echo(f"{good}\n{NOT_JUDGED}")
        return
    failed = 0
    async for name, problem in tried(settings, directory):
        click.echo(f"connect: {name}: {problem or 'reached'}")
        failed += problem is not None
    click.echo(good)
    if failed:
        raise CommandFailed(f"{failed} could not be reached")


@config_group.command("keys")
def config_keys() -> None:
    """Print a new set of keys as environment variables. Store them as secrets."""
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

    FILE may be - for standard input. A missing sentAt or requestId is filled in. Exit code 1 if any request got no
    answer.
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
    """List the open requests that need SYSTEM, at most 100, one id per line.

    SYSTEM must stay in the directory until they are closed.
    """
    from broker.ledger.ledger import Ledger

    settings = configuration.settings()
    async with Ledger.reading(settings) as lookups:
        for request_id, state in await lookups.open_requests(system):
            click.echo(f"{request_id} {state}")


@main.command()
@json_option
@click.pass_obj
@asynchronously
async def status(configuration: Configuration, as_json: bool) -> None:
    """List the broker processes: alive, ready. Exit code 0 if at least one is ready, otherwise 1."""
    from broker.ledger.ledger import Ledger

    settings = configuration.settings()
    async with Ledger.reading(settings) as lookups:
        workers = await lookups.workers()
    rows = [asdict(worker) for worker in workers]
    if as_json:
        print_json(rows)
    else:
        print_table(rows)
    if not any(worker.ready and worker.alive for worker in workers):
        raise CommandFailed("no process is ready")


for command in (*REPORT_COMMANDS, *OVERVIEW_COMMANDS):
    main.add_command(command)
main.add_command(console)
for command in LEDGER_COMMANDS:
    ledger_group.add_command(command)
