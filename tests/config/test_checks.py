"""Settings that are each fine but dangerous together are refused, with the names of the keys."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from config.checks import notices, problems
from config.combinations import ALL_DANGERS, Danger
from config.directory import Directory
from config.settings import Settings, build, generate_keys

# One case for each row of the tables: changed settings to which at least this row applies.
CASES: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {
    ("http.total_timeout_seconds", "requests.patience_seconds"): {"http": {"total_timeout_seconds": 29.6}},
    ("ledger.owner_dead_after_seconds", "http.total_timeout_seconds"): {
        "ledger": {"owner_dead_after_seconds": 25}
    },
    ("requests.patience_seconds", "requests.clock_skew_seconds"): {"requests": {"clock_skew_seconds": 1790}},
    ("requests.poll_ms", "requests.answer_margin_seconds"): {"requests": {"poll_ms": 600}},
    ("ledger.batch_linger_ms", "requests.answer_margin_seconds"): {"ledger": {"batch_linger_ms": 300}},
    ("rabbitmq.publish_timeout_seconds", "requests.patience_seconds"): {
        "rabbitmq": {"publish_timeout_seconds": 30}
    },
    ("rabbitmq.reconnect_max_seconds", "requests.patience_seconds"): {
        "rabbitmq": {"reconnect_max_seconds": 30}
    },
    ("http.in_flight", "http.waiting"): {"http": {"in_flight": 50, "waiting": 50}},
    ("verification.batch", "http.in_flight"): {"verification": {"batch": 41}},
    ("http.connect_timeout_seconds", "http.total_timeout_seconds"): {"http": {"connect_timeout_seconds": 8}},
    ("http.retry_first_ms", "http.retry_max_ms"): {"http": {"retry_first_ms": 2001}},
    ("http.retry_max_ms", "requests.patience_seconds"): {"http": {"retry_max_ms": 30_000}},
    ("http.breaker_open_seconds", "verification.give_up_after_seconds"): {
        "http": {"breaker_open_seconds": 259_200}
    },
    ("http.absence_proves_after_seconds", "requests.patience_seconds"): {
        "http": {"absence_proves_after_seconds": 38}
    },
    ("verification.steady_for_seconds", "http.absence_proves_after_seconds"): {
        "verification": {"steady_for_seconds": 599}
    },
    ("verification.give_up_after_seconds", "http.absence_proves_after_seconds"): {
        "http": {"absence_proves_after_seconds": 259_200}
    },
    ("verification.every_seconds", "verification.steady_for_seconds"): {
        "verification": {"every_seconds": 601}
    },
    ("verification.every_seconds", "verification.longest_pause_seconds"): {
        "verification": {"longest_pause_seconds": 9}
    },
    ("verification.steady_for_seconds", "verification.give_up_after_seconds"): {
        "verification": {"give_up_after_seconds": 600}
    },
    ("verification.longest_pause_seconds", "verification.give_up_after_seconds"): {
        "verification": {"give_up_after_seconds": 3600}
    },
    ("scheduler.tick_seconds", "verification.every_seconds"): {"scheduler": {"tick_seconds": 11}},
    ("ledger.heartbeat_seconds", "ledger.owner_dead_after_seconds"): {"ledger": {"heartbeat_seconds": 5.1}},
    ("ledger.statement_timeout_seconds", "ledger.heartbeat_seconds"): {
        "ledger": {"statement_timeout_seconds": 12}
    },
    ("ledger.batch_linger_ms", "ledger.heartbeat_seconds"): {"ledger": {"batch_linger_ms": 3000}},
    ("scheduler.tick_seconds", "ledger.owner_dead_after_seconds"): {"scheduler": {"tick_seconds": 15}},
    ("watchdog.loop_lag_seconds", "ledger.owner_dead_after_seconds"): {"watchdog": {"loop_lag_seconds": 15}},
    ("watchdog.check_seconds", "watchdog.recover_within_seconds"): {"watchdog": {"check_seconds": 60}},
    ("watchdog.recover_within_seconds", "rabbitmq.reconnect_max_seconds"): {
        "watchdog": {"recover_within_seconds": 20}
    },
    ("rabbitmq.reconnect_min_seconds", "rabbitmq.reconnect_max_seconds"): {
        "rabbitmq": {"reconnect_min_seconds": 11}
    },
    ("stop.drain_seconds", "http.total_timeout_seconds"): {"stop": {"drain_seconds": 8}},
    ("stop.drain_seconds", "rabbitmq.publish_timeout_seconds"): {"stop": {"drain_seconds": 10}},
    ("queues.max_body_bytes", "queues.bookings_prefetch"): {"queues": {"max_body_bytes": 16_777_216}},
    ("queues.dead_max_length", "queues.max_length"): {"queues": {"dead_max_length": 99_999}},
    ("http.connect_timeout_seconds", "reports.total_timeout_seconds"): {
        "http": {"connect_timeout_seconds": 15}
    },
    ("reports.in_flight", "reports.window"): {"reports": {"in_flight": 21}},
    ("reports.handed_over_too_long_seconds", "reports.window", "reports.in_flight"): {
        "reports": {"in_flight": 5}
    },
    ("reports.handed_over_too_long_seconds", "reports.window", "reports.rate_per_second"): {
        "reports": {"rate_per_second": 0.33}
    },
    ("reports.handed_over_too_long_seconds", "ledger.owner_dead_after_seconds"): {
        "ledger": {"owner_dead_after_seconds": 60}
    },
    ("reports.probe_within_seconds", "reports.total_timeout_seconds"): {
        "reports": {"probe_within_seconds": 15}
    },
    ("reports.park_first_seconds", "reports.park_most_seconds"): {"reports": {"park_most_seconds": 59}},
    ("reports.join_within_seconds", "requests.patience_seconds"): {"reports": {"join_within_seconds": 30}},
    ("stop.drain_seconds", "reports.total_timeout_seconds"): {"stop": {"drain_seconds": 15}},
    ("dead.canary_wait_seconds", "reports.handed_over_too_long_seconds"): {
        "dead": {"canary_wait_seconds": 60}
    },
    ("retention.letters_days", "retention.reports_days"): {"retention": {"letters_days": 91}},
}


def case_of(danger: Danger) -> dict[str, dict[str, Any]]:
    """The case of a row, by its first two keys, or by its first three if two rows share the first two."""
    return CASES.get(danger.keys[:3]) or CASES[danger.keys[:2]]


def settings_with(**changes: Any) -> Settings:
    return build(
        {"keys": generate_keys()}
        | changes
        | {"rabbitmq": {"url": "amqp://a:b@mq.example"} | changes.get("rabbitmq", {})}
    )


def directory_with(*, supplier: dict[str, Any] | None = None, **system: Any) -> Directory:
    address = {"base_url": "https://booking.example"}
    return Directory.model_validate(
        {
            "planners": {"plan": address},
            "booking_systems": {"tider": address | system},
            "suppliers": {"hus": {"name": "Hus", "base_url": "https://fejl.example"} | (supplier or {})},
            "jobcenters": {
                "90101": {"name": "By", "planner": "plan", "booking_system": "tider", "supplier": "hus"}
            },
        }
    )


def test_every_dangerous_combination_has_a_case() -> None:
    used = [id(case_of(danger)) for danger in ALL_DANGERS]
    assert sorted(used) == sorted(map(id, CASES.values()))


def test_the_defaults_are_not_dangerous() -> None:
    assert problems(settings_with()) == []


@pytest.mark.parametrize("danger", ALL_DANGERS, ids=lambda danger: " and ".join(danger.keys[:2]))
def test_a_dangerous_combination_is_reported_with_its_keys_and_the_reason(danger: Any) -> None:
    found = problems(settings_with(**case_of(danger)))
    sentence = next(text for text in found if text.endswith(f": {danger.why}"))
    assert all(f"{key} = " in sentence for key in danger.keys)


@pytest.mark.parametrize("danger", ALL_DANGERS, ids=lambda danger: " and ".join(danger.keys[:2]))
def test_a_dangerous_combination_names_only_settings_that_exist(danger: Any) -> None:
    settings = settings_with()
    for key in danger.keys:
        section, name = key.split(".")
        assert hasattr(getattr(settings, section), name)


BROKERS_OWN = (
    "*",
    "j*",
    "jobnet*",
    "jobnet.*",
    "jobnet.answer*",
    "*.answers",
    "jobnet.queries",
    "jobnet.reports.*",
)


@pytest.mark.parametrize("pattern", BROKERS_OWN)
def test_a_pattern_for_answers_must_not_match_a_queue_of_the_broker(pattern: str) -> None:
    found = problems(settings_with(answers={"allowed_reply_to": [pattern]}))
    assert [text.split(":")[0] for text in found] == ["answers.allowed_reply_to"]


@pytest.mark.parametrize("pattern", ["amq.rabbitmq.reply-to.*", "amq.gen-*", "jobnet.answers.*", "portal.*"])
def test_answers_may_go_to_other_queues(pattern: str) -> None:
    assert problems(settings_with(answers={"allowed_reply_to": [pattern]})) == []


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


GOOD = {
    "sealing": {"a": key(1), "b": key(2)},
    "seal_with": "b",
    "tokens": {"t": key(3)},
    "token_order": ["t"],
}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seal_with": "c"}, "keys.seal_with: must be the id of a key in keys.sealing"),
        ({"token_order": []}, "keys.token_order: must name the keys"),
        ({"token_order": ["t", "u"]}, "keys.token_order: names keys that are not in keys.tokens: u"),
        ({"token_order": ["t", "t"]}, "keys.token_order: names a key twice"),
        ({"tokens": {"t": key(3), "u": key(4)}}, "keys.token_order: leaves out keys of keys.tokens: u"),
        ({"tokens": {"t": key(1)}}, "keys.sealing.a, keys.tokens.t: are the same key"),
        (
            {"sealing": {}, "tokens": {}},
            "keys: are not set; `jobnet-broker config keys` prints a fresh set",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_keys_that_do_not_fit_together_are_refused(change: dict[str, Any], why: str) -> None:
    assert problems(settings_with(keys=GOOD)) == []
    found = problems(settings_with(keys=GOOD | change))
    assert any(sentence.startswith(why) for sentence in found)
    assert not any(key(number) in sentence for sentence in found for number in range(1, 5))


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"total_timeout_seconds": 29.6}, "total_timeout_seconds"),
        ({"connect_timeout_seconds": 8}, "connect_timeout_seconds"),
        ({"in_flight": 60}, "in_flight"),
        ({"waiting": 90}, "waiting"),
        ({"absence_proves_after_seconds": 38}, "absence_proves_after_seconds"),
        ({"retry_first_ms": 2001}, "retry_first_ms"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_overrides_of_a_system_are_checked_too(overrides: dict[str, Any], named: str) -> None:
    found = problems(settings_with(), directory_with(**overrides))
    assert found
    assert all(f"booking_systems.tider.{named} = " in sentence for sentence in found)
    assert problems(settings_with(), directory_with()) == []


def test_a_combination_that_is_dangerous_without_a_system_is_reported_once() -> None:
    settings = settings_with(stop={"drain_seconds": 8})
    assert problems(settings, directory_with(in_flight=10)) == problems(settings)


def test_a_file_that_a_system_names_must_be_there() -> None:
    found = problems(settings_with(), directory_with(ca_file="/nowhere/ca.pem"))
    assert found == ["booking_systems.tider.ca_file: there is no file /nowhere/ca.pem"]


def test_plain_http_gives_a_notice() -> None:
    open_system = directory_with(base_url="http://127.0.0.1:8080", allow_http=True)
    assert notices(open_system) == [
        "booking_systems.tider: allow_http is set: CPR numbers go to this system unencrypted"
    ]
    assert notices(directory_with()) == []


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"in_flight": 21}, "in_flight"),
        ({"window": 9}, "window"),
        ({"rate_per_second": 0.3}, "rate_per_second"),
        ({"total_timeout_seconds": 30}, "total_timeout_seconds"),
        ({"total_timeout_seconds": 1}, "total_timeout_seconds"),
        ({"connect_timeout_seconds": 15}, "connect_timeout_seconds"),
    ],
    ids=range(6),
)
def test_the_overrides_of_a_supplier_are_checked_too(overrides: dict[str, Any], named: str) -> None:
    found = problems(settings_with(), directory_with(supplier=overrides))
    assert found
    assert all(f"suppliers.hus.{named} = {float(overrides[named]):g}" in sentence for sentence in found)


def test_a_combination_that_is_dangerous_without_a_supplier_is_reported_once() -> None:
    settings = settings_with(reports={"park_most_seconds": 59})
    assert problems(settings, directory_with(supplier={"in_flight": 10})) == problems(settings)


def test_a_file_that_a_supplier_names_must_be_there() -> None:
    secrets = {"format": "webhook", "webhook_secret_files": ["/nowhere/old", "/nowhere/new"]}
    found = problems(settings_with(), directory_with(supplier=secrets | {"ca_file": "/nowhere/ca.pem"}))
    assert found == [
        "suppliers.hus.ca_file: there is no file /nowhere/ca.pem",
        "suppliers.hus.webhook_secret_files.0: there is no file /nowhere/old",
        "suppliers.hus.webhook_secret_files.1: there is no file /nowhere/new",
    ]


def test_a_supplier_with_plain_http_or_without_an_address_gives_a_notice() -> None:
    plain = {"base_url": "http://127.0.0.1:1", "allow_http": True}
    assert notices(directory_with(supplier=plain)) == [
        "suppliers.hus: allow_http is set: CPR numbers go to this system unencrypted"
    ]
    nowhere = directory_with(supplier={"base_url": ""})
    assert notices(nowhere) == [
        "suppliers.hus: has no base_url: its failure reports wait in the ledger and are not sent"
    ]
    assert problems(settings_with(), nowhere) == []
