"""Retry-After in both forms (RFC 9110, 10.2.3)."""

from __future__ import annotations

import math
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
        ("1.5", 1.5),
        ("+30", 30.0),
        ("60, 120", 120.0),
        ("9999999999", 9999999999.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 251_472_005_999.0),
        ("2031-03-03T10:01:30+01:00", 90.0),
        ("soon", math.inf),
        ("5 minutes", math.inf),
        ("1e3", math.inf),
        ("٣", math.inf),
        ("9" * 5000, math.inf),
        ("Mon, 99 Mar 2031 09:01:30 GMT", math.inf),
        ("Mon, 03 Mar 99999 09:01:30 GMT", math.inf),
    ],
)
def test_both_forms_of_retry_after_are_read_and_an_unreadable_one_waits(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_no_text_makes_retry_after_raise(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or seconds >= 0
