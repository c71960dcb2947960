"""What the settings are made of, and that each wrong key is named without its value."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from annotated_types import Ge, Le
from pydantic import BaseModel

from config.directory import load_directory
from config.load import load
from config.sections import DirectorySettings
from config.settings import DEFAULTS, EXAMPLE, Settings, build, generate_keys
from config.sources import PREFIX, ConfigProblem, merge

URL = "amqp://jobnet:hemmeligt-ord@rabbit.example:5672/jobnet"
SANDBOX = DEFAULTS.with_name("sandbox.toml")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The least that a broker needs: RabbitMQ's address and keys."""
    monkeypatch.setenv(f"{PREFIX}RABBITMQ__URL", URL)
    monkeypatch.setenv(f"{PREFIX}KEYS", json.dumps(generate_keys()))
    return monkeypatch


def problems_of(path: Path | None) -> list[str]:
    with pytest.raises(ConfigProblem) as caught:
        load(path)
    return caught.value.problems


def written(folder: Path, text: str) -> Path:
    path = folder / "broker.toml"
    path.write_text(text)
    return path


def keys_of(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    found = {}
    for name, field in model.model_fields.items():
        assert isinstance(field.annotation, type)
        found[name] = field.annotation
    return found


def test_the_manual_says_the_same_as_the_models() -> None:
    manual = tomllib.loads(DEFAULTS.read_text())
    bare = Settings.model_validate({"rabbitmq": {"url": URL}})
    assert build({"rabbitmq": {"url": URL}}) == bare
    for section, keys in bare.model_dump(mode="json", exclude_none=True).items():
        values = {k: v for k, v in keys.items() if section != "keys" and (section, k) != ("rabbitmq", "url")}
        assert manual[section] == values, section


def test_the_manual_describes_every_key_and_its_bounds() -> None:
    text = DEFAULTS.read_text()
    for section, model in keys_of(Settings).items():
        part = text.split(f"\n[{section}]\n")[1].split("\n\n\n[")[0]
        comments = "\n".join(line for line in part.splitlines() if line.startswith("#"))
        for key, field in model.model_fields.items():
            assert key in part or key.upper() in part, f"{section}.{key}"
            least = [m.ge for m in field.metadata if isinstance(m, Ge)]
            most = [m.le for m in field.metadata if isinstance(m, Le)]
            if least and most and most != [10_000_000]:
                assert f"{most[0]}" in comments, f"{section}.{key} has a bound that the manual does not state"


def test_the_sandbox_settings_only_differ_and_are_not_dangerous(environment: pytest.MonkeyPatch) -> None:
    different = tomllib.loads(SANDBOX.read_text())
    manual = tomllib.loads(DEFAULTS.read_text())
    for section, keys in different.items():
        for key, value in keys.items():
            assert manual[section][key] != value, f"{section}.{key} says nothing new"
    assert load(SANDBOX).requests.patience_seconds == different["requests"]["patience_seconds"]


def test_the_environment_wins_over_the_file_and_the_file_over_the_manual(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = written(tmp_path, "[http]\nin_flight = 7\nwaiting = 9\n[log]\nlevel = 'debug'\n")
    environment.setenv(f"{PREFIX}HTTP__WAITING", "11")
    environment.setenv(f"{PREFIX}ANSWERS__ALLOWED_REPLY_TO", '["amq.gen-*"]')
    environment.setenv(f"{PREFIX}VERIFICATION__BATCH", "5")

    settings = load(path)

    assert (settings.http.in_flight, settings.http.waiting, settings.log.level) == (7, 11, "debug")
    assert settings.answers.allowed_reply_to == ("amq.gen-*",)
    assert settings.http.total_timeout_seconds == 8


def test_secrets_come_from_files_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fresh = generate_keys()
    (tmp_path / "url").write_text(URL + "\n")
    (tmp_path / "dsn").write_text("postgresql://a:b@pg.example/ledger")
    (tmp_path / "keys").write_text(json.dumps(fresh))
    for name, file in (("RABBITMQ__URL_FILE", "url"), ("LEDGER__DSN_FILE", "dsn"), ("KEYS_FILE", "keys")):
        monkeypatch.setenv(PREFIX + name, str(tmp_path / file))

    settings = load(None)

    assert settings.rabbitmq.url.get_secret_value() == URL
    assert settings.ledger.dsn is not None
    assert settings.keys.seal_with == fresh["seal_with"]
    assert {len(key.get_secret_value()) for key in settings.keys.sealing.values()} == {32}


def test_no_secret_is_printed_with_the_settings(environment: pytest.MonkeyPatch) -> None:
    settings = load(None)
    key = next(iter(settings.keys.sealing.values())).get_secret_value()
    for text in (repr(settings), str(settings), settings.model_dump_json(exclude={"keys"})):
        assert "hemmeligt" not in text
        assert repr(key)[2:-1] not in text


def test_no_error_of_the_models_holds_what_was_given() -> None:
    with pytest.raises(ValueError, match=r"rabbitmq\.url") as caught:
        Settings.model_validate(
            {"rabbitmq": {"url": "hemmeligt-ord"}, "keys": {"sealing": {"a": "hemmeligt"}}}
        )
    assert "hemmeligt" not in str(caught.value)


def test_secrets_in_a_settings_file_are_refused_without_repeating_them(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = written(tmp_path, f'[rabbitmq]\nurl = "{URL}"\n[keys]\nseal_with = "a"\n')
    problems = problems_of(path)
    assert [p.split(":")[0] for p in problems] == ["keys", "rabbitmq.url"]
    assert "hemmeligt" not in str(problems)


def test_every_bad_key_is_named_at_once_and_no_value_is_repeated(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = written(tmp_path, "[http]\ntotal_timeout_seconds = -1\nin_fligth = 3\n[queus]\na = 1\n")
    environment.setenv(f"{PREFIX}LOG__LEVEL", "larmende")
    environment.setenv(f"{PREFIX}RABBITMQ__URL", "http://jobnet:hemmeligt-ord@rabbit.example")
    environment.setenv(f"{PREFIX}KEYS__SEALING", '{"a": "aGVtbWVsaWd0LW9yZA=="}')
    environment.setenv(f"{PREFIX}LEDGER__POOL__SIZE", "8")

    text = "\n".join(problems_of(path))

    for sentence in (
        "http.total_timeout_seconds: must be greater than 0",
        "http.in_fligth: is not a known key; did you mean http.in_flight?",
        "queus: is not a known key; did you mean queues?",
        "log.level: must be 'debug', 'info', 'warning' or 'error'",
        "rabbitmq.url: must be a URL that begins with amqp:// or amqps://",
        "keys.sealing.a: must be 32 random bytes in base64",
        f"{PREFIX}LEDGER__POOL__SIZE: must have the form {PREFIX}SECTION__KEY",
    ):
        assert sentence in text
    for value in ("hemmeligt", "aGVtbWVs", "larmende", "-1"):
        assert value not in text


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), ("a = ", "is not TOML"), (b"\xff", "is not UTF-8")],
    ids=["no file", "broken", "not utf-8"],
)
def test_a_settings_file_that_cannot_be_read_is_one_sentence(
    content: str | bytes | None, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "broker.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert why in problems_of(path)[0]


def test_a_secret_given_twice_or_in_an_empty_file_is_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    environment.setenv(f"{PREFIX}RABBITMQ__URL_FILE", str(tmp_path / "empty"))
    environment.setenv(f"{PREFIX}LEDGER__DSN_FILE", str(tmp_path / "empty"))
    problems = problems_of(None)
    assert f"{PREFIX}RABBITMQ__URL_FILE and {PREFIX}RABBITMQ__URL are both set; remove one" in problems
    assert any(p.startswith(f"{PREFIX}LEDGER__DSN_FILE: ") and p.endswith("is empty") for p in problems)


def test_without_keys_and_address_the_error_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    address, keys = problems_of(None)
    assert address.startswith("rabbitmq.url: must be set; set JOBNET_BROKER__RABBITMQ__URL")
    assert "jobnet-broker config keys" in keys


def test_settings_cannot_be_changed_afterwards(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(None).http.in_flight = 3  # type: ignore[misc]  # that is what is tested


def test_the_directory_file_starts_at_the_settings_file(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = written(tmp_path, "[directory]\nfile = 'mine/where.toml'\n")
    assert load(path).directory == DirectorySettings(file=tmp_path.resolve() / "mine/where.toml")
    environment.setenv(f"{PREFIX}DIRECTORY__FILE", "/elsewhere/d.toml")
    assert load(path).directory.file == Path("/elsewhere/d.toml")
    environment.delenv(f"{PREFIX}DIRECTORY__FILE")
    beside = written(tmp_path, "")
    assert load(beside).directory.file == tmp_path.resolve() / "directory.toml"


def test_a_relative_directory_without_a_settings_file_starts_at_the_working_directory(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.chdir(tmp_path)
    environment.setenv(f"{PREFIX}DIRECTORY__FILE", "directory.toml")
    assert load(None).directory.file == tmp_path / "directory.toml"


@pytest.mark.parametrize("settings_file", [None, SANDBOX])
def test_the_example_directory_is_taken_only_if_it_is_named(
    environment: pytest.MonkeyPatch, settings_file: Path | None
) -> None:
    assert load(settings_file).directory.file is None
    with pytest.raises(ConfigProblem, match=r"directory.file: is not set"):
        load_directory(load(settings_file).directory.file)
    environment.setenv(f"{PREFIX}DIRECTORY__FILE", str(EXAMPLE))
    assert load(settings_file).directory.file == EXAMPLE


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("LEDGER__DSN", "", "ledger.dsn: must be a URL that begins with postgresql://"),
        ("LEDGER__DSN", "postgresql://", "ledger.dsn: must be a URL that begins with postgresql://"),
        ("RABBITMQ__URL", "amqp://a:b@one,two/", "rabbitmq.url: must name one host"),
        ("RABBITMQ__URL", "amqp://a:b@one:5672,two:5672/", "rabbitmq.url: must name one host"),
        ("RABBITMQ__URL", "amqp://a:b@one,amqp://a:b@two", "rabbitmq.url: must name one host"),
        ("RABBITMQ__URL", "amqp://?heartbeat=5", "rabbitmq.url: must name a host"),
    ],
)
def test_an_address_that_would_mean_something_else_is_refused(
    environment: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    environment.setenv(f"{PREFIX}{name}", value)
    [problem] = problems_of(None)
    assert problem.startswith(why)


def test_a_password_may_hold_a_comma(environment: pytest.MonkeyPatch) -> None:
    environment.setenv(f"{PREFIX}RABBITMQ__URL", "amqp://a:one,two@mq.example/")
    assert load(None)


def test_in_flight_defaults_to_a_tenth_of_the_prefetch() -> None:
    settings = build({"rabbitmq": {"url": URL}, "queues": {"bookings_prefetch": 300}})
    assert (settings.limits().in_flight, settings.limits().waiting) == (30, 30)
    assert settings.limits({"in_flight": 4}).waiting == 4
    assert settings.limits({"waiting": 0}).waiting == 0
    assert build({"rabbitmq": {"url": URL}, "queues": {"bookings_prefetch": 1}}).limits().in_flight == 1


def test_merging_goes_table_by_table_and_changes_neither() -> None:
    base, changes = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "e": 5}
    assert merge(base, changes) == {"a": {"b": 1, "c": 4}, "d": 3, "e": 5}
    assert (base, changes) == ({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "e": 5})


def test_two_new_sets_of_keys_have_nothing_in_common() -> None:
    one, two = generate_keys(), generate_keys()
    assert not {*one["sealing"].values(), *one["tokens"].values()} & {
        *two["sealing"].values(),
        *two["tokens"].values(),
    }
