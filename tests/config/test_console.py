"""The section `console`: unsafe settings are refused at start, with the name of the key."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from broker.cli.console_commands import ROLES as CLI_ROLES
from broker.console.rights import ROLES
from config.console_section import ConsoleSettings, Role
from config.settings import build
from config.sources import ConfigProblem

GOOD = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$c29tZWhhc2hzb21laGFzaHNvbWVoYXNo"


def console(**changes: Any) -> ConsoleSettings:
    return build({"rabbitmq": {"url": "amqp://x/"}, "console": changes}).console


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"host": "0.0.0.0"}, "url must be the address"),  # noqa: S104  refused
        ({"host": "::"}, "url must be the address"),
        ({"host": "192.0.2.1", "url": "http://192.0.2.1:8025"}, "must begin with https"),
        ({"url": "http://console.example"}, "must begin with https"),
        ({"url": "https://console.example/path"}, "nothing else"),
        ({"url": "https://user:word@console.example"}, "nothing else"),
        ({"url": "https://:bad"}, "console.url"),
        ({"trusted_header": "X-User"}, "must be set together"),
        ({"trusted_proxies": ["127.0.0.1"]}, "must be set together"),
        ({"trusted_header": "X-User", "trusted_proxies": ["proxy.example"]}, "number 1 is not"),
        ({"session_idle_seconds": 10, "session_most_seconds": 5}, "must not be longer"),
        ({"users": {"Bo": {"roles": ["viewer"]}}}, "console.users"),
        ({"users": {"bo": {"roles": []}}}, "console.users.bo.roles"),
        ({"users": {"bo": {"roles": ["emperor"]}}}, "console.users.bo.roles"),
        ({"users": {"bo": {"roles": ["viewer"], "password": "x"}}}, "not a known key"),
    ],
)
def test_unsafe_settings_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigProblem) as refused:
        console(**changes)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "hash_",
    [
        "secret",
        "$2b$12$abcdefghijklmnopqrstuuvwxyzabcdefghijklmnopqrstuvwxyz",
        GOOD.replace("argon2id", "argon2i"),
        GOOD.replace("m=65536", "m=1024"),
        GOOD.replace("m=65536", "m=99999999"),
    ],
)
def test_a_weak_hash_is_refused_and_not_repeated(hash_: str) -> None:
    with pytest.raises(ConfigProblem) as refused:
        console(users={"bo": {"roles": ["viewer"], "password_hash": hash_}})
    assert "must be an argon2id hash" in str(refused.value)
    assert hash_ not in str(refused.value)


def test_a_good_hash_is_accepted_and_not_printed() -> None:
    settings = console(
        host="0.0.0.0",  # noqa: S104  behind a proxy
        url="https://Console.example/",
        users={"bo.b@x": {"roles": ["operator", "privacy"], "password_hash": GOOD}},
    )
    assert settings.origin == "https://console.example"
    assert GOOD not in repr(settings)


def test_a_container_may_listen_on_all_addresses_when_its_port_is_published_on_this_machine() -> None:
    settings = console(host="0.0.0.0", url="http://127.0.0.1:8025")  # noqa: S104  what is published is loopback
    assert settings.origin == "http://127.0.0.1:8025"


def test_the_default_origin_is_the_loopback_address() -> None:
    assert console().origin == "http://127.0.0.1:8025"
    assert console(host="::1", port=81).origin == "http://[::1]:81"


def test_the_roles_are_the_same_everywhere() -> None:
    assert set(get_args(Role)) == set(ROLES) == set(CLI_ROLES)
