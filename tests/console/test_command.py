"""The commands: the console as a process, the hash of a password, a login link."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import aiohttp
import pytest
from argon2 import PasswordHasher
from click.testing import CliRunner

from broker.cli.main import main
from config.console_section import ConsoleUser
from config.settings import Settings
from scripts.processes import free_port
from tests.console.browser import TOKEN
from tests.operators import environment_of
from tests.support import poll


def test_a_password_is_hashed_for_the_settings() -> None:
    result = CliRunner().invoke(main, ["console", "hash"], input="a long enough one\n")
    assert result.exit_code == 0, result.output
    hash_ = result.stdout.strip()
    assert PasswordHasher().verify(hash_, "a long enough one")
    assert ConsoleUser(roles=("viewer",), password_hash=hash_).password_hash
    assert "a long enough one" not in result.output


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_a_password_of_invalid_length_is_refused(password: str) -> None:
    assert CliRunner().invoke(main, ["console", "hash"], input=f"{password}\n").exit_code == 2


async def test_the_console_process_accepts_a_link_and_ends_on_sigterm(settings: Settings) -> None:
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    environment = os.environ | environment_of(settings) | {"JOBNET_BROKER__CONSOLE__PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "console"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as http:

            async def up() -> bool:
                assert process.returncode is None
                try:
                    async with http.get(f"{origin}/login") as answer:
                        return answer.status == 200
                except aiohttp.ClientConnectionError:
                    return False

            await poll(up, what="the console")
            link = await asyncio.to_thread(_link, environment)
            async with http.get(link) as answer:
                token = TOKEN.search(await answer.text())
            assert token
            fields = {"token": token[1], "link": link.rsplit("/", 1)[1]}
            async with http.post(f"{origin}/login/link", data=fields, headers={"Origin": origin}) as answer:
                assert (answer.status, str(answer.url)) == (200, f"{origin}/")
            # An open stream does not delay the stop.
            async with http.get(f"{origin}/events") as events:
                assert await events.content.readany()
                process.send_signal(signal.SIGTERM)
                _, err = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, err
        assert b"console-started" in err
    finally:
        if process.returncode is None:
            process.kill()


def _link(environment: dict[str, str]) -> str:
    words = ["console", "link", "--as", "ann", "--role", "viewer"]
    result = CliRunner().invoke(main, words, env=environment)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()
