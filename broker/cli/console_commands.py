"""The commands of the operators' console: serve it, hash a password for its settings, make a login link."""

from __future__ import annotations

import asyncio
import sys

import click

from broker import ops
from broker.cli.base import CommandFailed, Configuration, Mistake, asynchronously
from broker.errors import BrokerError
from broker.telemetry.log import configure

ROLES = ("viewer", "operator", "privacy", "admin")


@click.group(invoke_without_command=True)
@click.pass_context
def console(context: click.Context) -> None:
    """Serve the operators' web pages until SIGTERM or Ctrl-C (settings: section console)."""
    if context.invoked_subcommand:
        return
    # Imported here because the other commands need no web server.
    from broker.console.web_app import serve

    settings = context.obj.settings()
    configure(settings.log.format, settings.log.level)
    try:
        asyncio.run(serve(settings))
    except (BrokerError, OSError) as error:
        raise CommandFailed(str(error)) from None


@console.command("hash")
def console_hash() -> None:
    """Read a password from standard input and print its argon2 hash for the settings."""
    from broker.console.passwords import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, hash_password

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline(MAX_PASSWORD_LENGTH + 2).rstrip("\r\n")
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise Mistake(f"a password has {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")
    click.echo(hash_password(password))


@console.command("link")
@click.option("--as", "name", show_default="login name", help="Name of the user who logs in.")
@click.option(
    "--role",
    "roles",
    type=click.Choice(ROLES),
    multiple=True,
    required=True,
    help="Role of the user; repeat the option for several roles.",
)
@click.pass_obj
@asynchronously
async def console_link(configuration: Configuration, name: str | None, roles: tuple[str, ...]) -> None:
    """Print a link that logs in once, within console.link_seconds, at the running console."""
    from broker.console.links import issue
    from broker.sealing import Sealer

    settings = configuration.settings()
    if settings.console.trusted_header:
        raise Mistake(
            "console.trusted_header is set: the proxy names the user, and login links are not accepted"
        )
    name = name if name is not None else ops.login_name()
    if not name.strip() or len(name) > 100:
        raise Mistake("name the user: --as NAME, at most 100 characters")
    click.echo(f"{settings.console.origin}/login/link/{issue(Sealer(settings.keys), name.strip(), roles)}")
