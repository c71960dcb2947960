"""With tracing off nothing is wrapped and the SDK is not loaded; parsing of traceparents."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from broker.clients.call_spans import calling
from broker.reports.report_spans import attempting
from broker.requests.request_spans import LONGEST_WAIT, _sent_at, carrying, handling
from broker.telemetry.tracing import TRACING, child_of
from config.settings import build
from config.sources import ConfigProblem

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def work(*_: Any) -> Any:
    """An object with traced methods."""


def test_while_it_is_off_everything_is_what_it_was() -> None:
    assert not TRACING.on
    assert carrying(work) is work
    assert handling(work) is work
    assert attempting(work) is work
    assert calling("birk", work) is work


@pytest.mark.integration
def test_while_it_is_off_nothing_of_the_sdk_is_loaded() -> None:
    look = "import sys, broker.app; print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_report_has_its_place_in_the_trace_before_its_span_is_there() -> None:
    assert child_of(PARENT, 255) == "00-0af7651916cd43dd8448eb211c80319c-00000000000000ff-01"


@pytest.mark.parametrize(
    "nonsense", [None, "", "00-1", "0101364001", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]
)
def test_what_is_no_traceparent_is_no_parent(nonsense: str | None) -> None:
    assert child_of(nonsense, 1) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"sentAt": "yesterday at ten o\'clock"}',
        b'{"sentAt": "2001-01-01T00:00:00+00:00"}',
        b'{"sentAt": "2101-01-01T00:00:00+00:00"}',
        b'{"sentAt": "2026-11-23T09:00:00.00000"}',
        b'{"sentAt": "9999-99-99T99:99:99+99:99"}',
    ],
)
def test_a_time_that_cannot_be_is_not_when_the_waiting_began(body: bytes) -> None:
    assert _sent_at(body) is None
    assert LONGEST_WAIT.total_seconds() == 3600


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://x/v1", "http://user:word@x/v1/traces"])
def test_an_endpoint_is_an_address_without_a_password(endpoint: str) -> None:
    with pytest.raises(ConfigProblem, match=r"tracing\.endpoint"):
        build({"rabbitmq": {"url": "amqp://x"}, "tracing": {"endpoint": endpoint}})
