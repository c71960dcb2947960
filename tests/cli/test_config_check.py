"""`config check`: good only if a broker could start with it; it names what it read and says what it cannot judge."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.main import main
from config.settings import generate_keys
from config.sources import PREFIX
from tests.certificates import Certificates, made_in

DIRECTORY = """
[planners.plan]
base_url = "https://plan.example"
{planner}
[booking_systems.tider]
base_url = "http://127.0.0.1:1"
allow_http = true
{booking}
[suppliers.hus]
name = "Hus"
base_url = "https://fejl.example"
format = "webhook"
webhook_secret_envs = ["HUS_SECRET"]
[jobcenters.90101]
name = "By"
planner = "plan"
booking_system = "tider"
supplier = "hus"
"""
SECRET = "whsec_" + "A" * 32

Check = Callable[..., Result]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """`config check` with settings and a directory of this test's own; `planner`, `booking`: further lines there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broker.toml").write_text("")

    def run(*words: str, planner: str = "", booking: str = "", **environment: str | None) -> Result:
        (tmp_path / "directory.toml").write_text(DIRECTORY.format(planner=planner, booking=booking))
        usual = {
            f"{PREFIX}RABBITMQ__URL": "amqp://a:hemmeligt@127.0.0.1:1/",
            f"{PREFIX}LEDGER__DSN": "postgresql://a:hemmeligt@127.0.0.1:1/x",
            f"{PREFIX}KEYS": json.dumps(generate_keys()),
            "HUS_SECRET": SECRET,
        }
        return CliRunner().invoke(
            main, ["--config", "broker.toml", "config", "check", *words], env=usual | environment
        )

    return run


def test_what_was_read_is_named_and_what_is_not_judged_is_said(check: Check, tmp_path: Path) -> None:
    result = check()
    assert result.exit_code == 0, result.output
    assert f"settings: {tmp_path / 'broker.toml'}" in result.output
    assert f"directory: {tmp_path / 'directory.toml'}" in result.output
    assert f"environment: {PREFIX}RABBITMQ__URL\n" in result.output
    assert "good; 1 jobcenters" in result.output
    assert "not judged: whether the servers can be reached" in result.output
    assert "hemmeligt" not in result.output


def test_no_directory_at_all_is_not_good(check: Check, tmp_path: Path) -> None:
    environment = {
        f"{PREFIX}RABBITMQ__URL": "amqp://a:b@127.0.0.1:1/",
        f"{PREFIX}KEYS": json.dumps(generate_keys()),
    }
    for words in (("config", "check"), ("run",)):
        result = CliRunner().invoke(main, words, env=environment)
        assert result.exit_code == 2, result.output
        assert "directory.file: is not set" in result.output


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (None, "suppliers.hus.webhook_secret_envs: the variable HUS_SECRET is not set"),
        ("", "suppliers.hus.webhook_secret_envs: the variable HUS_SECRET is not set"),
        ("v1," + SECRET, "suppliers.hus.webhook_secret_envs.HUS_SECRET: must be whsec_"),
        ("whsec_short", "suppliers.hus.webhook_secret_envs.HUS_SECRET: must be whsec_"),
    ],
)
def test_a_webhook_secret_that_cannot_be_used_is_not_good(check: Check, secret: str | None, why: str) -> None:
    result = check(HUS_SECRET=secret)
    assert result.exit_code == 2, result.output
    assert why in result.output


@pytest.mark.parametrize("token", [None, "", "two words", "æ", "blank-at-the-end "])
def test_a_token_that_cannot_be_used_is_not_good(check: Check, token: str | None) -> None:
    result = check(booking='bearer_token_env = "TIDER_TOKEN"', TIDER_TOKEN=token)
    assert result.exit_code == 2, result.output
    assert "booking_systems.tider.bearer_token_env: " in result.output
    assert not token or token not in result.output


def test_a_token_file_that_cannot_be_used_is_not_good(check: Check, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("two words\n")
    result = check(booking='bearer_token_file = "token"')
    assert result.exit_code == 2, result.output
    assert "booking_systems.tider.bearer_token_file: a bearer token has" in result.output
    (tmp_path / "token").unlink()
    result = check(booking='bearer_token_file = "token"')
    assert result.output.count("bearer_token_file") == 1, result.output


def test_tls_files_that_cannot_be_used_are_not_good(check: Check, tmp_path: Path) -> None:
    made: Certificates = made_in(tmp_path)
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    client = f'client_cert = "{made.client.cert}"\nclient_key = "{made.server.key}"'
    result = check(planner=f'ca_file = "broken.pem"\n{client}')
    assert result.exit_code == 2, result.output
    assert "planners.plan.ca_file: " in result.output
    assert "planners.plan.client_cert: " in result.output
    client = f'client_cert = "{made.client.cert}"\nclient_key = "{made.client.key}"'
    assert check(planner=f'ca_file = "{made.ca}"\n{client}').exit_code == 0


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("LEDGER__DSN", "", "ledger.dsn: must be a URL"),
        ("RABBITMQ__URL", "amqp://a:b@one,two/", "rabbitmq.url: must name one host"),
    ],
)
def test_addresses_that_mean_something_else_are_not_good(
    check: Check, name: str, value: str, why: str
) -> None:
    result = check(**{PREFIX + name: value})
    assert result.exit_code == 2, result.output
    assert why in result.output


def test_the_start_refuses_the_same(check: Check) -> None:
    check()
    environment = {
        f"{PREFIX}RABBITMQ__URL": "amqp://a:b@127.0.0.1:1/",
        f"{PREFIX}KEYS": json.dumps(generate_keys()),
        "HUS_SECRET": "v1," + SECRET,
    }
    for words in (("run",), ("run", "--workers", "2")):
        result = CliRunner().invoke(main, ["--config", "broker.toml", *words], env=environment)
        assert result.exit_code == 2, result.output
        assert "HUS_SECRET: must be whsec_" in result.output


@pytest.mark.integration
async def test_connect_names_each_server_that_cannot_be_reached(
    check: Check, vhost: str, ledger_database: str
) -> None:
    servers = {f"{PREFIX}RABBITMQ__URL": vhost, f"{PREFIX}LEDGER__DSN": ledger_database}
    result = await asyncio.to_thread(check, "--connect", **servers)
    assert result.exit_code == 1, result.output
    assert "connect: RabbitMQ: reached" in result.output
    assert "connect: PostgreSQL: reached" in result.output
    assert "connect: booking_systems.tider: Connect" in result.output
    assert "connect: planners.plan: the name cannot be resolved" in result.output
    assert "3 could not be reached" in result.output


@pytest.mark.integration
async def test_connect_is_bounded_in_time_when_servers_say_nothing(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.cli.config_check.TRY_S", 1.0)
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        port = silent.getsockname()[1]
        servers = {
            f"{PREFIX}RABBITMQ__URL": f"amqp://a:b@127.0.0.1:{port}/",
            f"{PREFIX}LEDGER__DSN": f"postgresql://a:b@127.0.0.1:{port}/x",
        }
        result = await asyncio.wait_for(asyncio.to_thread(check, "--connect", **servers), 60)
    assert result.exit_code == 1
    assert "connect: RabbitMQ: no answer within 1 s" in result.output
    assert "connect: PostgreSQL: no answer within 1 s" in result.output
