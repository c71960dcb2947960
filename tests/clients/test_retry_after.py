"""Retry-After in both forms (RFC 9110, 10.2.3)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clients.http import retry_after

NOW = datetime(2031, 3, 3, 9, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Mon, 03 Mar 2031 09:01:30 GMT", 90.0),
        ("Mon, 03 Mar 2031 08:00:00 GMT", 0.0),
        ("Mon, 03 Mar 2031 09:01:30 -0000", 90.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 5000, None),
        ("Mon, 99 Mar 2031 09:01:30 GMT", None),
    ],
)
def test_both_forms_of_retry_after_are_read_and_nothing_else(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_no_text_makes_retry_after_raise(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or seconds >= 0
