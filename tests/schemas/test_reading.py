"""Every body is a message or an InvalidMessage, and no refusal repeats input (docs/privacy.md#logs)."""

from __future__ import annotations

import json
import traceback
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.requests import REQUESTS
from schemas.strict_json import DEEPEST
from schemas.wire import InvalidMessage
from tests.schemas.samples import OFFER_ID, REQUEST_ID, SAMPLES, body, problems, read

BOOK = "booking.book.v1"
MARK = "0202364444"
SAMPLE = body(SAMPLES[BOOK])
BOM = b"\xef\xbb\xbf"


def test_a_bom_before_the_message_is_skipped() -> None:
    assert read(BOOK, BOM + SAMPLE) == read(BOOK, SAMPLE)


def with_field(name: str, json_text: str) -> bytes:
    return SAMPLE[:-1] + f', "{name}": {json_text}}}'.encode()


def nested(levels: int) -> bytes:
    """The sample with a field so deep that the message has this many levels."""
    return with_field("nyt", "[" * (levels - 1) + "]" * (levels - 1))


def refusal(type: str | None, raw: bytes, **more: Any) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as caught:
        read(type, raw, **more)
    return caught.value


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", {"body": "is empty"}),
        (b" ", {"body": "is not JSON (line 1, column 2)"}),
        (b"{", {"body": "is not JSON (line 1, column 2)"}),
        (b"hej", {"body": "is not JSON (line 1, column 1)"}),
        (SAMPLE + b"}", {"body": f"is not JSON (line 1, column {len(SAMPLE) + 1})"}),
        (b"[]", {"body": "must be a JSON object"}),
        (b"null", {"body": "must be a JSON object"}),
        (b"17", {"body": "must be a JSON object"}),
        (b'{"a":"\xe6"}', {"body": "must be UTF-8 (byte 6 is not)"}),
        (BOM, {"body": "is empty"}),
        (BOM + BOM + SAMPLE, {"body": "is not JSON (line 1, column 1)"}),
        (BOM + b'{"a":"\xe6"}', {"body": "must be UTF-8 (byte 9 is not)"}),
        (json.dumps(SAMPLES[BOOK]).encode("utf-16"), {"body": "must be UTF-8 (byte 0 is not)"}),
        (b'{"a":"\xed\xa0\x80"}', {"body": "must be UTF-8 (byte 6 is not)"}),
        (with_field("nyt", "NaN"), {"body": "must not hold NaN or Infinity"}),
        (with_field("nyt", "[-Infinity]"), {"body": "must not hold NaN or Infinity"}),
        (with_field("moedeform", '"digitalt"'), {"moedeform": "must not be given twice"}),
        (with_field("requestId", f'"{OFFER_ID}"'), {"requestId": "must not be given twice"}),
        (with_field("nyt", f'{{"{MARK}":1,"{MARK}":1}}'), {"body": "must not hold the same field twice"}),
        (nested(DEEPEST + 1), {"body": "must not be nested deeper than 32 levels"}),
        (nested(5000), {"body": "must not be nested deeper than 32 levels"}),
        (b"[" * 60_000, {"body": "must not be nested deeper than 32 levels"}),
        (b'{"a":' * 10_000, {"body": "must not be nested deeper than 32 levels"}),
        (with_field("nyt", "9" * 5000), {"body": "must not hold a number of thousands of digits"}),
        (with_field("deadline2", '"\\u0000"'), {"body": "must not hold U+0000 or half a surrogate pair"}),
        (with_field("x", '["\\ud800"]'), {"body": "must not hold U+0000 or half a surrogate pair"}),
        (with_field("x", '{"\\udfff":1}'), {"body": "must not hold U+0000 or half a surrogate pair"}),
        (
            SAMPLE.replace(b"RID:1", b"RID\\u0000"),
            {"sagsbehandlerId": "must not hold U+0000 or half a surrogate pair"},
        ),
        (SAMPLE.replace(b"RID:1", b"RID\x00"), None),
        (with_field("x", '"' + "x" * 65536 + '"'), {"body": "must not be larger than 65536 bytes"}),
    ],
    ids=range(30),
)
def test_a_body_that_is_no_clean_json_object_is_refused(raw: bytes, expected: dict[str, str] | None) -> None:
    """Empty, 10 MB, wrong encoding, wrong type, deep nesting, U+0000."""
    found = problems(BOOK, raw)
    assert found == expected or (expected is None and found["body"].startswith("is not JSON"))


def test_the_deepest_allowed_nesting_and_paired_surrogates_are_accepted() -> None:
    assert read(BOOK, nested(DEEPEST)) == read(BOOK, SAMPLE)
    assert read(BOOK, with_field("nyt", '"\\ud83d\\ude00"')) == read(BOOK, SAMPLE)


@pytest.mark.parametrize(
    ("type", "problem"),
    [
        (None, "is required: the AMQP property type, such as booking.book.v1"),
        ("", "is required: the AMQP property type, such as booking.book.v1"),
        ("booking.book.v3", "version 3 of booking.book is unknown; this broker reads v1"),
        ("booking.book.v0", "version 0 of booking.book is unknown; this broker reads v1"),
        ("booking.book", f"is unknown; this broker reads {', '.join(REQUESTS)}"),
        ("booking.steal.v1", f"is unknown; this broker reads {', '.join(REQUESTS)}"),
        (f"booking.book.v{MARK}", f"is unknown; this broker reads {', '.join(REQUESTS)}"),
        ("x" * 100_000, f"is unknown; this broker reads {', '.join(REQUESTS)}"),
    ],
    ids=range(8),
)
def test_an_unknown_type_or_version_is_refused_clearly(type: str | None, problem: str) -> None:
    """The answer still has the id of its request."""
    found = refusal(type, SAMPLE)
    assert {each.field: each.problem for each in found.problems} == {"type": problem}
    assert found.request_id == UUID(REQUEST_ID)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
    ],
)
def test_json_in_utf_8_is_the_one_content_type(content_type: str | None) -> None:
    assert read(BOOK, SAMPLE, content_type=content_type) == read(BOOK, SAMPLE)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/json; charset=latin-1", "application/xml", MARK],
    ids=range(5),
)
def test_another_content_type_is_refused(content_type: str) -> None:
    assert problems(BOOK, SAMPLE, content_type=content_type) == {
        "content_type": "must be application/json in UTF-8, or left out"
    }


def test_properties_and_fields_are_named_together() -> None:
    raw = body({**SAMPLES[BOOK], "cpr": "1"})
    assert set(problems(BOOK, raw, content_type="text/plain")) == {"content_type", "cpr"}
    assert set(problems(None, b"", content_type="text/plain")) == {"type", "content_type", "body"}


@pytest.mark.parametrize(
    ("raw", "readable"),
    [
        (body({**SAMPLES[BOOK], "cpr": None}), True),
        (nested(DEEPEST + 1), True),
        (with_field("nyt", "NaN"), True),
        (with_field("moedeform", "1"), True),
        (with_field("nyt", '"\\u0000"'), True),
        (body({"requestId": REQUEST_ID}), True),
        (body({"requestId": REQUEST_ID + "0"}), False),
        (body({"requestId": [REQUEST_ID]}), False),
        (body([{"requestId": REQUEST_ID}]), False),
        (with_field("requestId", f'"{OFFER_ID}"'), False),
        (SAMPLE[:-1], False),
        (nested(5000), False),
        (b"", False),
    ],
    ids=range(13),
)
def test_the_request_id_is_kept_when_it_can_be_read_without_doubt(raw: bytes, readable: bool) -> None:
    assert refusal(BOOK, raw).request_id == (UUID(REQUEST_ID) if readable else None)


types = st.none() | st.sampled_from(sorted(REQUESTS)) | st.text(max_size=40)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(MARK)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def read_or_refuse(type: str | None, raw: bytes) -> str:
    """Everything that a log could print about the refusal."""
    try:
        read(type, raw)
    except InvalidMessage as refused:
        return "".join(traceback.format_exception(refused)) + repr(refused) + repr(refused.problems)
    return ""


@given(types, st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(type: str | None, raw: bytes) -> None:
    read_or_refuse(type, raw)


@given(types, trees)
def test_any_json_is_a_message_or_refused_without_repeating_it(type: str | None, tree: Any) -> None:
    """docs/privacy.md#logs"""
    raw = json.dumps({**SAMPLES[BOOK], "nyt": tree} if type == BOOK else tree, ensure_ascii=True).encode()
    assert MARK not in read_or_refuse(type, raw)


@given(st.sampled_from(sorted(REQUESTS)), st.data())
def test_any_value_in_any_field_is_accepted_or_refused_without_repeating_it(
    type: str, data: st.DataObject
) -> None:
    # Given a right message, some of whose fields hold something else, marked where it can be
    sample = SAMPLES[type]
    names = data.draw(st.lists(st.sampled_from(sorted(sample)), min_size=1, unique=True))
    wrong = st.builds(lambda text: f"{MARK}{text}", st.text()) | trees
    fields = {**sample, **{name: data.draw(wrong) for name in names}, f"felt{MARK}": data.draw(trees)}

    # Then what was refused is named, and nothing of it is shown
    shown = read_or_refuse(type, json.dumps(fields).encode())
    assert MARK not in shown


@given(st.sampled_from(["sentAt", "deadline"]), st.integers(0, 9999), st.integers(-24, 24), st.data())
def test_no_date_overflows_anything(field: str, year: int, hours: int, data: st.DataObject) -> None:
    # Given a moment anywhere on the calendar, at its ends by preference
    year = data.draw(st.sampled_from([0, 1, 2, 1999, 2000, 2999, 9998, 9999, year]))
    day = data.draw(st.sampled_from(["01-01T00:00:00", "12-31T23:59:59.999999"]))
    raw = body({**SAMPLES[BOOK], field: f"{year:04}-{day}{hours:+03}:00"})

    # Then it is a message with a deadline, or refused
    try:
        message = read(BOOK, raw)
    except InvalidMessage:
        return
    assert message.effective_deadline()
