"""The health server of a worker: alive, ready or why not, metrics; a port in use does not stop the worker."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from broker.clients.certificates import certificate_ends, certificates_shown
from broker.health.metrics import METRICS, Metrics
from broker.health.server import HealthServer
from broker.health.vitals import Vitals
from broker.ledger.ledger import Ledger
from broker.ledger.operators.figures import OTHER, Backlog, grouped
from broker.rabbitmq.consumer import Consumer
from broker.telemetry.counters import Counters
from config.directory import Directory
from config.health_sections import HealthSettings
from config.sources import environment_with
from config.systems import SystemConfig
from scripts.processes import free_port
from tests.certificates import Authority, made_in
from tests.clients.support import RawServer
from tests.support import poll


class FakeConsumer:
    """A consumer with a problem, or none."""

    def __init__(self, problem: str | None = None) -> None:
        self.trouble = problem
        self.in_flight, self.bugs = 0, 0

    def problem(self) -> str | None:
        return self.trouble


class FakeLedger:
    def __init__(self, *, away: bool = False) -> None:
        self.availability = SimpleNamespace(away=away)
        self.heartbeat = SimpleNamespace(age_s=0.5)


def vitals(problem: str | None = None, *, away: bool = False, **rest: Any) -> Vitals:
    """The vitals of a process that has started."""
    return Vitals(
        counters=Counters(),
        consumer=cast(Consumer, FakeConsumer(problem)),
        ledger=cast(Ledger, FakeLedger(away=away)),
        **rest,
    )


@asynccontextmanager
async def served(of: Vitals) -> AsyncIterator[str]:
    """Serve these vitals; gives the server's address."""
    port = free_port()
    async with HealthServer(HealthSettings(port=port), of):
        base = f"http://127.0.0.1:{port}"
        await poll(lambda: answers(base), what="the health server")
        yield base


async def answers(base: str) -> bool:
    try:
        return (await fetched(f"{base}/healthz"))[0] == 200
    except aiohttp.ClientError:
        return False


async def fetched(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, await response.text()


@pytest.mark.integration
async def test_a_worker_that_carries_requests_is_alive_and_ready() -> None:
    async with served(vitals()) as base:
        assert await fetched(f"{base}/healthz") == (200, "alive\n")
        assert await fetched(f"{base}/readyz") == (200, "ready\n")


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (Vitals(counters=Counters()), "starting"),
        (vitals("no consumer on jobnet.bookings"), "no consumer on jobnet.bookings"),
        (vitals(away=True), "PostgreSQL cannot be reached"),
        (vitals(stopping=True), "stopping: running work is being finished"),
    ],
)
@pytest.mark.integration
async def test_a_worker_that_is_not_ready_gives_the_reasons(of: Vitals, why: str) -> None:
    async with served(of) as base:
        assert await fetched(f"{base}/healthz") == (200, "alive\n")
        assert await fetched(f"{base}/readyz") == (503, f"not ready: {why}\n")


def test_an_alarm_of_rabbitmq_is_a_reason() -> None:
    assert "an alarm" in vitals(blocked=True).why_not_ready()[0]


@pytest.mark.integration
async def test_a_port_that_is_taken_is_served_as_soon_as_it_is_free() -> None:
    port = free_port()
    settings, base = HealthSettings(port=port), f"http://127.0.0.1:{port}"
    async with HealthServer(settings, vitals()) as first:
        await poll(lambda: answers(base), what="the first")
        async with HealthServer(settings, vitals("the second")):
            assert not await says(base, "the second")
            await first.__aexit__()
            await poll(lambda: says(base, "the second"), what="the second")


async def says(base: str, word: str) -> bool:
    try:
        return word in (await fetched(f"{base}/readyz"))[1]
    except aiohttp.ClientError:
        return False


async def test_port_0_serves_nothing_and_starts_nothing() -> None:
    before = len(asyncio.all_tasks())
    async with HealthServer(HealthSettings(port=0), vitals()):
        assert len(asyncio.all_tasks()) == before


# -- metrics ---------------------------------------------------------------------------------------------------------


def read(of: Vitals) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample, by name and label values, in the order of the table."""
    order = {word: n for row in METRICS for n, word in enumerate(row.labels.split())}
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(Metrics(of).text().decode()):
        for sample in family.samples:
            labels = sorted(sample.labels, key=lambda word: order.get(word, 9))
            found.setdefault(sample.name, {})[tuple(sample.labels[word] for word in labels)] = sample.value
    return found


def test_every_metric_can_be_read_before_anything_has_started() -> None:
    samples = read(Vitals(counters=Counters()))
    assert samples["jobnet_ready"] == {(): 0}
    assert "process_cpu_seconds_total" in samples


def test_names_follow_the_rules_of_prometheus_and_each_has_a_meaning() -> None:
    for row in METRICS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", row.name), row.name
        assert row.help[0].isupper() or row.help[0] == "1", row.name
    assert len({row.name for row in METRICS}) == len(METRICS)


def test_what_was_counted_is_shown() -> None:
    of = vitals()
    of.counters.arrived("booking.book.v1")
    of.counters.answers[("booking.book.v1", "failed", "4")] += 2
    of.counters.called("birk", "create", "UNAVAILABLE", 0.3)
    samples = read(of)
    assert samples["jobnet_requests_total"][("booking.book.v1",)] == 1
    assert samples["jobnet_answers_total"][("booking.book.v1", "failed", "4")] == 2
    assert samples["jobnet_calls_total"] == {("birk", "create", "unavailable"): 1}
    assert samples["jobnet_call_duration_seconds_bucket"][("birk", "create", "0.25")] == 0
    assert samples["jobnet_call_duration_seconds_bucket"][("birk", "create", "0.5")] == 1
    assert samples["jobnet_call_duration_seconds_count"] == {("birk", "create"): 1}


def test_every_possible_answer_is_exported_as_zero_from_the_start() -> None:
    assert read(vitals())["jobnet_answers_total"][("booking.book.v1", "uncertain", "")] == 0


def test_keys_and_certificates_show_when_they_end(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    config = SystemConfig(base_url="https://birk.example", ca_file=authority.path)
    directory = Directory.model_construct(
        jobcenters={}, planners={}, booking_systems={"birk": config}, suppliers={}
    )
    of = vitals(certificates=certificate_ends(directory), key_expiry={"s-1": date(2027, 11, 1)})
    samples = read(of)
    assert samples["jobnet_key_expiry_timestamp_seconds"] == {
        ("s-1",): datetime(2027, 11, 1, tzinfo=UTC).timestamp()
    }
    ends = samples["jobnet_certificate_expiry_timestamp_seconds"][("birk", "ca")]
    assert ends > (datetime.now(UTC) - timedelta(days=1)).timestamp()


@pytest.mark.integration
async def test_the_certificate_that_a_system_shows_is_seen_without_asking_it_anything(tmp_path: Path) -> None:
    certificates = made_in(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificates.server.cert, certificates.server.key)
    async with RawServer(tls=serving) as server:
        good = SystemConfig(base_url=server.url, ca_file=certificates.ca)
        refused = SystemConfig(base_url=server.url)
        away = SystemConfig(base_url=f"https://127.0.0.1:{free_port()}", ca_file=certificates.ca)
        systems = {"good": good, "refused": refused, "away": away}
        directory = Directory.model_construct(
            jobcenters={}, planners=systems, booking_systems={}, suppliers={}
        )
        shown = await certificates_shown(directory)
    ends = x509.load_pem_x509_certificate(certificates.server.cert.read_bytes()).not_valid_after_utc
    assert shown == {("good", "server"): ends}
    assert server.requests == []


def test_a_certificate_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    config = SystemConfig(base_url="https://birk.example", ca_file=tmp_path / "missing.pem")
    directory = Directory.model_construct(
        jobcenters={}, planners={"birk": config}, booking_systems={}, suppliers={}
    )
    assert certificate_ends(directory) == {}


def test_an_unknown_cause_is_counted_as_other_and_the_number_of_causes_is_bounded() -> None:
    rows = [
        ("jobnet.bookings.dead", "invalid", Backlog(5, 9.0)),
        ("jobnet.bookings.dead", "0101364001", Backlog(1, 3.0)),
    ]
    rows += [
        ("jobnet.bookings.dead", f"word-{chr(97 + n % 26)}{chr(97 + n // 26)}", Backlog(1))
        for n in range(200)
    ]
    found = grouped(rows)
    assert found[("jobnet.bookings.dead", "invalid")] == Backlog(5, 9.0)
    assert not any("0101364001" in cause for _, cause in found)
    assert len(found) <= 51
    assert sum(pile.number for pile in found.values()) == 206
    assert found[("jobnet.bookings.dead", OTHER)].oldest_s == 3.0


# -- several workers -----------------------------------------------------------------------------------------------


@contextmanager
def variables(**values: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


def test_a_worker_gets_its_own_port_whatever_its_parent_was_told() -> None:
    with variables(JOBNET_BROKER__HEALTH__PORT_FILE="/x", jobnet_broker__health__port="1", OTHER="kept"):
        environment = environment_with("health.port", "9651")
    ports = {name: value for name, value in environment.items() if "health" in name.lower()}
    assert ports == {"JOBNET_BROKER__HEALTH__PORT": "9651"}
    assert environment["OTHER"] == "kept"
