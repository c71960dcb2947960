"""Real TLS handshakes with certificates made here: trusted servers, client certificates, and the bearer token."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from broker.clients import Systems
from broker.clients.calls import Call, CallKind
from broker.clients.classify import CallClass
from broker.clients.http import HttpSystem
from broker.clients.tls import SetupProblem
from broker.errors import BrokerError, Misconfigured, Unavailable
from broker.reports.enrichment import text_of
from config.directory import Directory
from config.settings import build
from schemas.codes import ErrorCode
from schemas.external import Reservation
from tests.certificates import Certificates, Pair, made_in
from tests.clients.support import End, RawServer, caller, http, system

pytestmark = pytest.mark.integration

GOOD = http(200, {"reserveretTil": "2031-03-03T09:00:00+01:00"})
COMMIT: Call[Reservation] = Call("accept", CallKind.COMMIT, "POST", "/x", 200, Reservation)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return made_in(tmp_path_factory.mktemp("certificates"))


def serving(pair: Pair, *, clients_of: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of)
    return context


async def outcome(to: HttpSystem, seconds: float = 0.6) -> BrokerError | int:
    try:
        return (await to.call(COMMIT, caller(seconds))).status
    except BrokerError as error:
        return error


async def test_a_server_with_a_certificate_of_our_ca_is_called(certificates: Certificates) -> None:
    async with (
        RawServer(default=GOOD, tls=serving(certificates.server)) as server,
        system(server.url, config={"ca_file": certificates.ca}) as to,
    ):
        assert await outcome(to) == 200
        assert await outcome(to) == 200
    assert server.connections == 1


@pytest.mark.parametrize(
    ("who", "what"),
    [
        ("stranger", "certificate-unknown-issuer"),
        ("elsewhere", "certificate-wrong-host"),
        ("expired", "certificate-expired"),
        ("early", "certificate-not-yet-valid"),
    ],
)
async def test_another_server_certificate_is_misconfigured_and_nothing_is_sent(
    certificates: Certificates, who: str, what: str
) -> None:
    async with (
        RawServer(default=GOOD, tls=serving(getattr(certificates, who))) as server,
        system(server.url, config={"ca_file": certificates.ca}) as to,
    ):
        error = await outcome(to)
    assert isinstance(error, Misconfigured)
    assert error.call_facts.what == what
    assert server.requests == []
    assert "certifikat" in text_of(ErrorCode.OTHER, error.call_facts)


async def test_without_our_ca_its_certificates_are_not_trusted(certificates: Certificates) -> None:
    async with RawServer(default=GOOD, tls=serving(certificates.server)) as server, system(server.url) as to:
        error = await outcome(to)
    assert isinstance(error, Misconfigured)


@contextmanager
def alerting(context: ssl.SSLContext) -> Iterator[str]:
    """The address of a server that refuses every client with a TLS alert (asyncio's sends none)."""
    listening = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        with suppress(OSError):
            while True:
                connection = context.wrap_socket(
                    listening.accept()[0], server_side=True, do_handshake_on_connect=False
                )
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    with pytest.raises(ssl.SSLError):
                        connection.do_handshake()
                    while socket.socket.recv(connection, 1000):  # or a reset would overtake the alert
                        pass

    thread = threading.Thread(target=refuse, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_sent(certificates: Certificates, version: ssl.TLSVersion) -> None:
    strict = serving(certificates.server, clients_of=certificates.ca)
    strict.minimum_version = strict.maximum_version = version
    ours = {"client_cert": certificates.client.cert, "client_key": certificates.client.key}
    async with (
        RawServer(default=GOOD, tls=strict) as server,
        system(server.url, config={"ca_file": certificates.ca, **ours}) as to,
    ):
        assert await outcome(to) == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown", ["none", "strange", "old"])
async def test_a_missing_or_untrusted_client_certificate_is_misconfigured_and_not_unknown(
    certificates: Certificates, version: ssl.TLSVersion, shown: str
) -> None:
    """With TLS 1.3 the refusal comes after our first bytes; the server has read none of them."""
    strict = serving(certificates.server, clients_of=certificates.ca)
    strict.minimum_version = strict.maximum_version = version
    pairs = {"strange": certificates.stranger, "old": certificates.old_client}
    pair = pairs.get(shown)
    with alerting(strict) as url:
        files = {"ca_file": certificates.ca}
        files |= {"client_cert": pair.cert, "client_key": pair.key} if pair else {}
        async with system(url, config=files) as to:
            error = await outcome(to)
    assert isinstance(error, Misconfigured)
    what = {
        "none": "client-certificate-wanted",
        "strange": "client-certificate-refused",
        "old": "client-certificate-expired",
    }
    # With TLS 1.2 OpenSSL says "handshake failure" for a missing certificate, as for many other things.
    allowed = {what[shown], "tls"} if shown == "none" and version is ssl.TLSVersion.TLSv1_2 else {what[shown]}
    assert error.call_facts.what in allowed


async def test_a_single_try_distinguishes_a_refused_certificate_from_a_lost_answer(
    certificates: Certificates,
) -> None:
    trusting = {"ca_file": certificates.ca}
    async with (
        RawServer(End.CLOSE, default=GOOD, tls=serving(certificates.server)) as known,
        RawServer(default=GOOD, tls=serving(certificates.elsewhere)) as elsewhere,
        system(known.url, config=trusting) as to_known,
        system(elsewhere.url, config=trusting) as to_elsewhere,
    ):
        lost, lost_facts = await to_known.call_once(COMMIT, {}, after_unanswered=False)
        good, _ = await to_known.call_once(COMMIT, {}, after_unanswered=True)
        refused, refused_facts = await to_elsewhere.call_once(COMMIT, {}, after_unanswered=False)
    assert (lost.call_class, lost_facts.sent, lost_facts.unanswered) == (CallClass.UNAVAILABLE, True, True)
    assert good.call_class is CallClass.DONE
    assert (refused.call_class, refused_facts.what) == (
        CallClass.MISCONFIGURED,
        "certificate-wrong-host",
    )
    assert (refused_facts.sent, refused_facts.unanswered) == (False, False)
    assert elsewhere.requests == []


async def test_a_server_that_only_speaks_old_tls_is_misconfigured(certificates: Certificates) -> None:
    old = serving(certificates.server)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with alerting(old) as url:
        async with system(url, config={"ca_file": certificates.ca}) as to:
            error = await outcome(to)
    assert isinstance(error, Misconfigured)
    assert error.call_facts.what == "tls"


async def test_plain_http_on_a_tls_address_is_misconfigured() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(400))
        writer.close()
        await writer.wait_closed()

    listening = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, system(f"https://127.0.0.1:{port}") as to:
        error = await outcome(to)
    assert isinstance(error, Misconfigured)


async def test_a_handshake_that_is_cut_is_unavailable() -> None:
    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    listening = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, system(f"https://127.0.0.1:{port}") as to:
        error = await outcome(to)
    assert isinstance(error, Unavailable)


async def test_a_connection_lost_under_tls_is_sent(certificates: Certificates) -> None:
    async with (
        RawServer(default=End.CLOSE, tls=serving(certificates.server)) as server,
        system(server.url, config={"ca_file": certificates.ca}) as to,
    ):
        error = await outcome(to)
    assert type(error).__name__ == "Unknown"
    assert len({request.x_request_id for request in server.requests}) == 1


@pytest.mark.parametrize("keys", [("ca_file",), ("client_cert", "client_key")])
async def test_a_missing_file_is_misconfigured_for_that_system_only(
    tmp_path: Path, keys: tuple[str, ...]
) -> None:
    gone = dict.fromkeys(keys, tmp_path / "gone.pem")
    async with system("https://127.0.0.1:9", config=gone) as to:
        error = await outcome(to)
    assert isinstance(error, Misconfigured)
    assert error.call_facts.what == "tls-files"


async def test_a_bearer_token_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    async with (
        RawServer(default=GOOD) as server,
        system(server.url, config={"bearer_token_file": file}) as to,
    ):
        assert await outcome(to) == 200
        file.write_text("second-one\n")
        assert await outcome(to) == 200
        file.unlink()
        error = await outcome(to)
    assert isinstance(error, Misconfigured)
    assert error.call_facts.what == "bearer-token"
    assert [r.headers["authorization"] for r in server.requests] == ["Bearer first", "Bearer second-one"]


@pytest.mark.parametrize("token", ["two words", "line\r\nx-evil: 1", "æ"])
async def test_an_invalid_token_is_not_sent_and_not_shown(tmp_path: Path, token: str) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    async with (
        RawServer(default=GOOD) as server,
        system(server.url, config={"bearer_token_file": file}) as to,
    ):
        error = await outcome(to)
    assert isinstance(error, Misconfigured)
    assert token not in str(error)
    assert server.requests == []


async def test_a_bearer_token_comes_from_the_environment_through_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NORDBY_TOKEN", "secret")
    async with (
        RawServer(default=GOOD) as server,
        system(server.url, config={"bearer_token_env": "NORDBY_TOKEN"}) as to,
    ):
        assert await outcome(to) == 200
    assert server.requests[0].headers["authorization"] == "Bearer secret"


def directory_of(url: str, certificates: Certificates, folder: Path) -> Directory:
    """A directory whose Planner is at `url` and wants the client certificate in `folder`."""
    files = {"ca_file": certificates.ca, "client_cert": folder / "c.pem", "client_key": folder / "c.key"}
    jobcenter = {"name": "By", "planner": "plan", "booking_system": "tider", "supplier": "hus"}
    return Directory.model_validate(
        {
            "planners": {"plan": {"base_url": url} | files},
            "booking_systems": {"tider": {"base_url": "https://tider.example"}},
            "suppliers": {"hus": {"name": "Hus"}},
            "jobcenters": {"90101": jobcenter},
        }
    )


def put(pair: Pair, folder: Path) -> None:
    """Write this pair in place, as a renewal does."""
    (folder / "c.pem").write_bytes(pair.cert.read_bytes())
    (folder / "c.key").write_bytes(pair.key.read_bytes())


async def test_a_client_certificate_mended_in_place_is_used_after_a_reload(
    certificates: Certificates, tmp_path: Path
) -> None:
    strict = serving(certificates.server, clients_of=certificates.ca)
    put(certificates.old_client, tmp_path)
    settings = build({"rabbitmq": {"url": "amqp://a:b@mq.example"}})

    async def asked(systems: Systems) -> BrokerError | int:
        return await outcome(systems._planners["plan"])

    async with RawServer(default=GOOD, tls=strict) as server:
        directory = directory_of(server.url, certificates, tmp_path)
        async with Systems(settings, directory) as systems:
            first = systems._planners["plan"]
            assert isinstance(await asked(systems), BrokerError)

            # Nothing changed: nothing is built anew.
            assert await systems.replace(directory) == []
            assert systems._planners["plan"] is first

            # Mended in place, under the same name, without another configuration.
            put(certificates.client, tmp_path)
            changed = await systems.replace(directory)
            assert changed == [
                "planners.plan.client_cert: other contents",
                "planners.plan.client_key: other contents",
            ]
            assert await asked(systems) == 200
            good = systems._planners["plan"]

            # A broken one is refused and the old one kept, also for new connections.
            (tmp_path / "c.pem").write_text("broken")
            with pytest.raises(SetupProblem):
                await systems.replace(directory)
            assert systems._planners["plan"] is good
            assert await asked(systems) == 200

            # And a later mended one is taken.
            put(certificates.client, tmp_path)
            (tmp_path / "c.pem").write_bytes(certificates.client.cert.read_bytes() + b"\n")
            assert await systems.replace(directory) == ["planners.plan.client_cert: other contents"]
            assert systems._planners["plan"] is not good
            assert await asked(systems) == 200


async def test_a_system_whose_files_were_missing_at_the_start_takes_them_at_a_reload(
    certificates: Certificates, tmp_path: Path
) -> None:
    settings = build({"rabbitmq": {"url": "amqp://a:b@mq.example"}})
    async with RawServer(default=GOOD, tls=serving(certificates.server)) as server:
        directory = directory_of(server.url, certificates, tmp_path)
        async with Systems(settings, directory) as systems:
            error = await outcome(systems._planners["plan"])
            assert isinstance(error, Misconfigured)
            assert error.call_facts.what == "tls-files"
            put(certificates.client, tmp_path)
            await systems.replace(directory)
            assert await outcome(systems._planners["plan"]) == 200
