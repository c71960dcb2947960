"""HttpSystem against a raw server: the sent request, what counts as sent, and untrusted answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import traceback
import tracemalloc
import zlib
from typing import Any

import pytest

from broker.clients.calls import Call, CallKind
from broker.clients.http import HttpSystem
from broker.clients.http_transport import decompressed
from broker.errors import (
    AtCapacity,
    BrokerError,
    ContractBroken,
    Failure,
    Misconfigured,
    Refused,
    Rejected,
    Unavailable,
    Unknown,
)
from config.systems import SystemConfig
from schemas.external import Booking, Reservation
from tests.clients.support import BOOKING, CPR, End, RawServer, caller, fault, http, limits, system
from tests.support import poll

pytestmark = pytest.mark.integration

UNTIL = '{"reserveretTil": "2031-03-03T09:00:00+01:00"}'
GOOD = http(200, UNTIL, kind="application/json")


def call(kind: CallKind, method: str = "GET", **more: Any) -> Call[Reservation]:
    return Call("step", kind, method, "/v1/x", 200, Reservation, **more)


READ, RESERVE, COMMIT = (
    call(CallKind.READ),
    call(CallKind.RESERVE, "POST", body=b"{}"),
    call(CallKind.COMMIT, "DELETE"),
)
DEAD_PORT = "http://127.0.0.1:9"


async def outcome(to: HttpSystem, what: Call[Reservation], seconds: float = 0.05) -> BrokerError | int:
    try:
        return (await to.call(what, caller(seconds))).status
    except BrokerError as error:
        return error


async def test_a_call_carries_its_headers_and_nothing_personal_in_its_address() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with RawServer(GOOD) as server, system(server.url + "/base/") as to:
        await to.call(RESERVE, caller(traceparent=parent))
    (sent,) = server.requests
    assert (sent.method, sent.target, sent.body) == ("POST", "/base/v1/x", b"{}")
    wanted = {
        "x-civilregistrationidentifier": CPR,
        "x-activeorganisation": "08510",
        "traceparent": parent,
        "accept": "application/json",
        "accept-encoding": "gzip",
        "user-agent": "jobnet-broker",
        "content-type": "application/json",
        "content-length": "2",
    }
    assert wanted.items() <= sent.headers.items()
    assert set(sent.headers) == set(wanted) | {"host", "x-requestid"}


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        "nonsense",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx: y",
    ],
)
async def test_an_invalid_traceparent_is_left_out(parent: str | None) -> None:
    async with RawServer(GOOD) as server, system(server.url) as to:
        await to.call(READ, caller(traceparent=parent))
    assert "traceparent" not in server.requests[0].headers


async def test_query_values_are_encoded_also_the_plus_of_an_offset() -> None:
    asked = call(CallKind.READ, query=(("fra", "2031-03-03T09:00:00+01:00"), ("gruppe", "æ&b=c d/?")))
    async with RawServer(GOOD) as server, system(server.url) as to:
        await to.call(asked, caller())
    wanted = "/v1/x?fra=2031-03-03T09%3A00%3A00%2B01%3A00&gruppe=%C3%A6%26b%3Dc%20d%2F%3F"
    assert server.requests[0].target == wanted


async def test_an_empty_post_says_that_it_is_empty() -> None:
    async with RawServer(GOOD) as server, system(server.url) as to:
        await to.call(call(CallKind.COMMIT, "POST"), caller())
    assert server.requests[0].headers["content-length"] == "0"
    assert "content-type" not in server.requests[0].headers


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET, (b"HTTP/1.1 200 O", End.CLOSE)])
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "PUT"])
@pytest.mark.parametrize("reused", [False, True])
async def test_a_lost_connection_is_never_silently_retried(method: str, end: Any, reused: bool) -> None:
    """aiohttp's ClientSession repeats idempotent methods: exactly one request per try must reach the server."""
    # With a pause longer than the caller's time there is no second try.
    async with (
        RawServer(*[GOOD] * reused, default=end) as server,
        system(server.url, retry_first_ms=60_000, retry_max_ms=60_000) as to,
    ):
        if reused:
            await to.call(READ, caller())
        error = await outcome(to, call(CallKind.RESERVE, method), 5)
        ids = [request.x_request_id for request in server.requests[int(reused) :]]
    assert isinstance(error, Unavailable)
    assert error.call_facts.what == "reset"
    assert len(ids) == 1
    # Every try ends its connection: as many connections as requests, the first one kept.
    assert [request.connection for request in server.requests[int(reused) :]] == list(range(1, len(ids) + 1))
    assert server.connections == len(ids)
    assert len(server.requests) == len(ids) + int(reused)


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
@pytest.mark.parametrize("reused", [False, True])
async def test_a_cancel_whose_connection_is_lost_was_sent_also_on_a_kept_connection(
    end: End, reused: bool
) -> None:
    async with RawServer(*[GOOD] * reused, end, GOOD) as server, system(server.url) as to:
        if reused:
            await to.call(READ, caller())
        error = await outcome(to, COMMIT, 2)
        first, second = server.requests[int(reused) :]
    assert isinstance(error, Unknown)
    assert first.x_request_id == second.x_request_id
    assert not reused or first.connection == server.requests[0].connection


@pytest.mark.parametrize(
    ("action", "wanted", "what"),
    [
        (http(502), Unavailable, "status 502"),
        (http(500, "<html>", kind="text/html"), Unavailable, "status 500"),
        (http(403), Misconfigured, "status 403"),
        (http(302, b"", "Location: /v1/y"), ContractBroken, "redirect"),
        (http(307, b"", "Location: /v1/y"), ContractBroken, "redirect"),
        (http(200, "<html>log in</html>", kind="text/html; charset=utf-8"), ContractBroken, "html"),
        (http(200, "{"), ContractBroken, "body"),
        (http(200, b"\xff\xfe"), ContractBroken, "body"),
        (http(200, "[" * 15_000), ContractBroken, "body"),
        (http(202, UNTIL, kind="application/json"), ContractBroken, "status 202"),
        (http(418), Rejected, "status 418"),
        (fault(409, "tid-optaget"), Refused, "status 409"),
        (http(200, b"x" * 20_001), ContractBroken, "too-large"),
        (http(200, UNTIL, "Content-Encoding: br"), ContractBroken, "encoding"),
        (http(200, b"not gzip", "Content-Encoding: gzip"), ContractBroken, "encoding"),
        (http(200, gzip.compress(b"0" * 5_000_000), "Content-Encoding: gzip"), ContractBroken, "too-large"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", ContractBroken, "not-http"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", ContractBroken, "not-http"),
        (End.HANG, Unavailable, "timeout"),
        ((b"HTTP/1.1 200 OK\r\n", End.HANG), Unavailable, "timeout"),
        ((http(200, UNTIL)[:-5], End.HANG), Unavailable, "timeout"),
        ((http(200, UNTIL)[:-5], End.CLOSE), Unavailable, "reset"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", End.RESET), Unavailable, "reset"),
    ],
)
async def test_each_fault_of_the_server_becomes_its_error(action: Any, wanted: type, what: str) -> None:
    async with RawServer(default=action) as server, system(server.url, total_timeout_seconds=0.1) as to:
        read = await outcome(to, READ, 0.1)
        commit = await outcome(to, COMMIT, 0.3)
    assert type(read) is wanted
    assert isinstance(read, Failure | Refused)
    assert read.call_facts is not None
    assert read.call_facts.what == what
    if wanted is Refused:
        assert type(commit) is Refused
    else:
        assert isinstance(commit, Unknown)
        assert commit.call_facts.what == what


async def test_an_unanswered_commit_is_sent_twice_with_one_id_and_an_answered_one_once() -> None:
    async with RawServer(End.HANG, GOOD, http(500)) as server, system(server.url) as to:
        assert type(await outcome(to, COMMIT, 3)) is Unknown
        assert len({request.x_request_id for request in server.requests}) == 1
        assert len(server.requests) == 2
        assert type(await outcome(to, COMMIT, 3)) is Unknown
        assert len(server.requests) == 3


async def test_no_connection_is_not_sent() -> None:
    async with system(DEAD_PORT, retry_first_ms=60_000, retry_max_ms=60_000) as to:
        read, commit = await outcome(to, READ, 5), await outcome(to, COMMIT, 5)
    for error in (read, commit):
        assert isinstance(error, Unavailable)
        assert error.call_facts.what == "connect-refused"


async def test_an_unknown_host_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nobody)
    async with system("http://nobody.invalid", retry_first_ms=60_000, retry_max_ms=60_000) as to:
        error = await outcome(to, COMMIT, 5)
    assert isinstance(error, Unavailable)
    assert error.call_facts.what == "dns"


async def test_a_tls_handshake_that_hangs_is_not_sent() -> None:
    async with (
        RawServer() as silent,  # waits for the end of a request that never comes
        system(f"https://127.0.0.1:{silent.port}", connect_timeout_seconds=0.1) as to,
    ):
        error = await outcome(to, COMMIT, 0.5)
    assert isinstance(error, Unavailable)
    assert error.call_facts.what == "connect-timeout"


async def test_gzip_answers_are_decompressed_and_two_gzip_members_are_refused() -> None:
    packed = gzip.compress(UNTIL.encode())
    members = packed + packed
    cut = zlib.compress(UNTIL.encode())
    async with (
        RawServer(
            http(200, packed, "Content-Encoding: gzip"),
            http(200, members, "Content-Encoding: gzip"),
            http(200, cut, "Content-Encoding: gzip"),
        ) as server,
        system(server.url) as to,
    ):
        assert await outcome(to, READ) == 200
        assert isinstance(await outcome(to, READ), ContractBroken)
        assert isinstance(await outcome(to, READ), ContractBroken)


def test_a_decompression_bomb_is_stopped_at_the_limit() -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    tracemalloc.start()
    try:
        assert decompressed(bomb, 20_000) == (b"", "too-large")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


async def test_an_endless_answer_is_cut_off_at_the_limit() -> None:
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n%b\r\n" % (b"x" * 1000) * 30
    async with RawServer((endless, End.HANG)) as server, system(server.url, total_timeout_seconds=5) as to:
        error = await outcome(to, READ, 5)
    assert isinstance(error, ContractBroken)
    assert error.call_facts.what == "too-large"


async def test_cookies_are_neither_kept_nor_sent() -> None:
    baked = http(200, UNTIL, "Set-Cookie: who=0101364001; Path=/", kind="application/json")
    # By name, because a cookie jar keeps no cookies of an IP address.
    async with RawServer(baked, GOOD) as server, system(server.url.replace("127.0.0.1", "localhost")) as to:
        await to.call(READ, caller())
        await to.call(READ, caller())
    assert "cookie" not in server.requests[1].headers


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", DEAD_PORT)
    monkeypatch.setenv("HTTP_PROXY", DEAD_PORT)
    async with RawServer(GOOD) as server, system(server.url) as to:
        assert await outcome(to, READ) == 200


@pytest.mark.parametrize(
    "answer",
    [
        http(204),
        http(204, b"", kind="text/html; charset=utf-8"),
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_a_204_is_a_204_and_what_follows_it_is_no_answer_to_the_next_call(answer: bytes) -> None:
    cancel: Call[Reservation] = Call("cancel", CallKind.COMMIT, "DELETE", "/v1/x", 204)
    async with RawServer(answer, GOOD) as server, system(server.url) as to:
        assert (await to.call(cancel, caller())).status == 204
        assert await outcome(to, READ, 2) == 200


async def test_an_unreadable_optional_field_of_a_booking_is_left_out_with_a_note_and_a_bom_is_skipped(
    capfd: pytest.CaptureFixture[str],
) -> None:
    odd = BOOKING | {"ombookingsfrist": "0001-01-01T00:00:00", "aflysningsfrist": CPR}
    body = b"\xef\xbb\xbf" + json.dumps(odd).encode()
    problem = b'\xef\xbb\xbf{"type": "urn:borgerbooking:fejl:tid-optaget"}'
    async with (
        RawServer(http(201, body, kind="application/json"), http(409, problem)) as server,
        system(server.url) as to,
    ):
        create = Call("create", CallKind.COMMIT, "POST", "/v1/x", 201, Booking, body=b"{}")
        got = (await to.call(create, caller())).body
        assert got == Booking.model_validate(BOOKING)
        with pytest.raises(Refused):
            await to.call(create, caller())
    told = "".join(capfd.readouterr())
    assert "answer-part-left-out" in told
    assert CPR not in told


async def test_a_body_of_the_contract_counts_whatever_its_label() -> None:
    """Django labels every answer text/html."""
    async with (
        RawServer(
            http(200, UNTIL, kind="text/html"),
            http(409, '{"type": "urn:borgerbooking:fejl:tid-optaget"}', kind="text/html"),
        ) as server,
        system(server.url) as to,
    ):
        assert await outcome(to, COMMIT) == 200
        assert isinstance(await outcome(to, COMMIT), Refused)


async def test_text_from_the_server_appears_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Only status, fault type and mapped codes are kept (docs/privacy.md#logs); the number is in all other parts."""
    caplog.set_level(logging.DEBUG)
    marked: list[Any] = [
        fault(409, "tid-optaget", title=CPR, detail=CPR),
        http(400, {"type": CPR, "detail": CPR}, kind="application/problem+json"),
        http(500, CPR, f"X-Note: {CPR}"),
        http(302, b"", f"Location: http://127.0.0.1:9/{CPR}"),
        http(200, f"<html>{CPR}", kind="text/html"),
        http(200, {"reserveretTil": CPR}),
        f"HTTP/1.1 200 {CPR}\r\n{CPR}\r\n\r\n".encode(),
        f"{CPR}\r\n\r\n".encode(),
        (f"HTTP/1.1 200 {CPR}\r\nContent-Length: 99\r\n\r\n{CPR}".encode(), End.CLOSE),
    ]
    for action in marked:
        async with RawServer(default=action) as server, system(server.url) as to:
            for what in (READ, RESERVE, COMMIT):
                try:
                    await to.call(what, caller(0.05))
                    raise AssertionError("must not succeed")
                except BrokerError as error:
                    chain = [error, error.__cause__, error.__context__]
                    told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
                    assert CPR not in told + repr(chain)
    assert CPR not in caplog.text


async def test_a_hung_system_is_bounded_by_its_bulkhead_and_breaker_and_others_are_not_affected() -> None:
    async with (
        RawServer(default=End.HANG) as hung,
        RawServer(default=GOOD) as well,
        system(hung.url, in_flight=2, waiting=3, breaker_failures=1, total_timeout_seconds=2) as bad,
        system(well.url) as good,
    ):
        asked = [asyncio.create_task(outcome(bad, READ, 5)) for _ in range(8)]
        await poll(lambda: len(hung.requests) == 2, what="both requests")
        assert [await outcome(good, READ, 5) for _ in range(5)] == [200] * 5
        assert sum(task.done() for task in asked) == 3, "only the calls over the full waiting list have ended"
        ends = await asyncio.gather(*asked)
        assert hung.most_at_once == 2
        whats = sorted(end.call_facts.what for end in ends if isinstance(end, AtCapacity))
        assert whats == ["breaker-open"] * 3 + ["waiting-list-full"] * 3
        assert sum(type(end) is Unavailable for end in ends) == 2
        before = len(hung.requests)
        assert isinstance(await outcome(bad, COMMIT, 5), AtCapacity)
        assert len(hung.requests) == before


async def test_the_breaker_lets_one_probe_through_and_closes_on_its_answer() -> None:
    async with (
        RawServer(http(500), http(500), default=GOOD) as server,
        system(server.url, breaker_failures=2, breaker_open_seconds=0.1) as to,
    ):
        assert isinstance(await outcome(to, READ, 1), Unavailable)
        assert isinstance(await outcome(to, READ, 1), AtCapacity)
        await asyncio.sleep(0.12)
        assert [await outcome(to, READ, 1) for _ in range(3)] == [200] * 3


async def test_a_cancelled_call_releases_its_slot_and_its_connection() -> None:
    async with RawServer(End.HANG, default=GOOD) as server, system(server.url, in_flight=1) as to:
        asked = asyncio.create_task(outcome(to, READ, 5))
        await poll(lambda: len(server.requests) == 1, what="the request")
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert await outcome(to, READ, 5) == 200


async def test_connections_are_kept_and_reused() -> None:
    async with RawServer(default=GOOD) as server, system(server.url) as to:
        for _ in range(5):
            await to.call(READ, caller())
    assert server.connections == 1


def test_a_plain_address_needs_to_be_allowed() -> None:
    with pytest.raises(ValueError, match="allow_http"):
        HttpSystem("nordby", SystemConfig.model_construct(base_url="http://x", allow_http=False), limits())
