"""Suppliers in the directory: formats, secrets, limits, meaning of HTTP statuses (docs/contract.md#directory)."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook

from config.directory import Directory, changed_systems, load_directory
from config.settings import Settings, build
from config.sources import ConfigProblem
from config.suppliers import Supplier
from tests.config.support import dump_directory

ADDRESS = {"name": "Hus", "base_url": "https://fejl.example"}
WEBHOOK = ADDRESS | {"format": "webhook"}
SETTINGS: Settings = build({"rabbitmq": {"url": "amqp://a:b@mq.example"}})


def secret(number: int, size: int = 32) -> str:
    return "whsec_" + base64.b64encode(bytes([number]) * size).decode()


def supplier(**given: Any) -> Supplier:
    return Supplier.model_validate(ADDRESS | given)


def directory(**given: Any) -> Directory:
    address = {"base_url": "https://a.example"}
    return Directory.model_validate(
        {
            "planners": {"plan": address},
            "booking_systems": {"tider": address},
            "suppliers": {"hus": {"name": "Hus"} | given},
            "jobcenters": {
                "90101": {"name": "By", "planner": "plan", "booking_system": "tider", "supplier": "hus"}
            },
        }
    )


def test_by_default_technical_failures_are_reported_over_the_contract() -> None:
    """R10: technical failures by default, codes 2 and 3 if the directory says so."""
    usual = supplier()
    assert (usual.format, usual.report_codes, usual.status_means) == ("contract", (4,), {})
    assert supplier(report_codes=[]).report_codes == ()
    assert supplier(report_codes=[3, 2]).report_codes == (3, 2)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"format": "post"}, "'contract' or 'webhook'"),
        ({"format": "webhook"}, "must name one secret together"),
        ({"format": "webhook", "webhook_secret_envs": ["A", "B"], "webhook_secret_files": ["c"]}, "or two"),
        ({"format": "webhook", "webhook_secret_envs": ["A", "B", "C"]}, "at most 2"),
        ({"webhook_secret_envs": ["A"]}, "do nothing with format contract"),
        ({"report_codes": [1]}, "Input should be 2, 3 or 4"),
        ({"report_codes": [4, 4]}, "must not name a code twice"),
        ({"status_means": {"302": "delivered"}}, "String should match pattern"),
        ({"status_means": {"302": "retry"}}, "String should match pattern"),
        ({"status_means": {"4xx": "retry"}}, "String should match pattern"),
        ({"status_means": {"422": "maybe"}}, "'delivered', 'retry', 'dead' or 'park'"),
        ({"status_means": {"204": "retry"}}, "must not hold 204"),
        ({"status_means": {"422": "delivered", "404": "delivered"}}, "must not call 404 delivered"),
        ({"status_means": {"503": "delivered"}}, "must not call 503 delivered"),
        ({"base_url": "http://fejl.example"}, "base_url must be https"),
        ({"base_url": "https://bruger:ord@fejl.example"}, "must not hold a user"),
        ({"client_cert": "a.pem"}, "client_cert and client_key must be set together"),
        ({"breaker_failures": 3, "waiting": 3}, "waiting, breaker_failures: does nothing for a supplier"),
        ({"rate_per_second": 0}, "greater than 0"),
        ({"window": 0}, "greater than or equal to 1"),
        ({"webhook_secret": "whsec_hemmeligt"}, "Extra inputs"),
    ],
)
def test_a_mistake_is_refused_without_its_value(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        supplier(**given)
    assert why in str(caught.value)
    assert "hemmeligt" not in str(caught.value)


@pytest.mark.parametrize("status", ["200", "202", "409", "410", "422"])
@pytest.mark.parametrize("meaning", ["delivered", "retry", "dead", "park"])
def test_a_supplier_may_override_the_meaning_of_a_status(status: str, meaning: str) -> None:
    """A supplier can override what an HTTP status means, for example 422 = retry (docs/architecture.md#retries)."""
    assert supplier(status_means={status: meaning}).status_means == {status: meaning}


def test_a_supplier_overrides_the_section_reports() -> None:
    own = supplier(window=7, in_flight=3, rate_per_second=0.5, total_timeout_seconds=4)
    lane, limits = own.lane(SETTINGS.reports), own.limits(SETTINGS)
    assert (lane.window, lane.in_flight, lane.rate_per_second, lane.total_timeout_seconds) == (7, 3, 0.5, 4)
    assert (limits.in_flight, limits.total_timeout_seconds) == (3, 4)
    assert lane.retry_delays_seconds == SETTINGS.reports.retry_delays_seconds
    assert supplier().lane(SETTINGS.reports) == SETTINGS.reports
    assert supplier().limits(SETTINGS).total_timeout_seconds == SETTINGS.reports.total_timeout_seconds
    assert supplier(max_response_bytes=2048).limits(SETTINGS).max_response_bytes == 2048


def test_the_default_retry_delays() -> None:
    """10 s, 1 m, 5 m, 30 m, 2 h, 6 h, then 12 h five times (docs/architecture.md#retries)."""
    assert SETTINGS.reports.retry_delays_seconds == (10, 60, 300, 1800, 7200, 21_600, *[43_200] * 5)


def test_live_secrets_are_read_when_they_are_needed_and_verifiers_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given one secret in a file beside the directory and one in a variable
    monkeypatch.setenv("HUS_SECRET", secret(2, 24))
    given = directory(
        base_url="https://fejl.example",
        format="webhook",
        webhook_secret_files=["hus.secret"],
        webhook_secret_envs=["HUS_SECRET"],
    )
    path = tmp_path / "directory.toml"
    path.write_text(dump_directory(given))
    read = load_directory(path).suppliers["hus"]
    with pytest.raises(ConfigProblem, match=r"webhook_secret_files: .*hus\.secret: cannot be read"):
        read.webhook_secrets()

    # When the file is there
    (tmp_path / "hus.secret").write_text(secret(1) + "\n")

    # Then both are live, the file's first, and the library of the suppliers takes them
    assert read.webhook_secrets() == (secret(1), secret(2, 24))
    assert [Webhook(each) for each in read.webhook_secrets()]
    monkeypatch.delenv("HUS_SECRET")
    with pytest.raises(ConfigProblem, match="the variable HUS_SECRET is not set"):
        read.webhook_secrets()


@pytest.mark.parametrize(
    "text",
    [
        "hemmeligt",
        "whsec_",
        "whsec_hemmeligt!",
        "whsec_aGVtbWVsaWd0",
        secret(1, 23),
        secret(1, 65),
        secret(1).removeprefix("whsec_"),
        secret(1).replace("=", ""),
        secret(1) + "\n" + secret(2),
    ],
    ids=range(9),
)
def test_an_invalid_secret_is_named_by_its_place_and_never_shown(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUS_SECRET", text)
    with pytest.raises(ConfigProblem) as caught:
        supplier(format="webhook", webhook_secret_envs=["HUS_SECRET"]).webhook_secrets()
    assert str(caught.value.problems[0]).startswith("webhook_secret_envs.HUS_SECRET: must be whsec_ and then")
    assert "hemmeligt" not in str(caught.value)
    assert not text.removeprefix("whsec_") or text not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        ("https://a.example", "https://b.example", True),
        ("https://a.example", "", True),
        ("", "https://a.example", False),
        ("https://a.example", "https://a.example/", False),
    ],
)
def test_a_reload_tells_which_suppliers_move(old: str, new: str, moved: bool) -> None:
    """A reload is refused if it removes a system with open rows or changes its address (docs/contract.md#directory)."""
    changed = changed_systems(directory(base_url=old), directory(base_url=new))
    assert changed == ({"hus"} if moved else set())
