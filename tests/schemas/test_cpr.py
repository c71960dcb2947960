"""R6: a CPR number has ten digits, with a day and a month that exist; the century rule decides about leap days.

Modulus 11 is not checked (not guaranteed since 2007). Replacement numbers (day 61-91) and 0000000000 are refused.
"""

from __future__ import annotations

import copy
import json
import pickle
import re
from calendar import isleap
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.personal import REVEAL, Cpr, birth_year, cpr_problem, date_problem
from tests.schemas.samples import CPR

future_dates = st.dates(date(2030, 1, 1), date(2036, 12, 31))
serials = st.integers(0, 999)


def number(born: date, serial: int) -> str:
    return f"{born:%d%m%y}4{serial:03}"


class Holder(BaseModel):
    cpr: Cpr


@given(future_dates, serials)
def test_every_day_that_exists_is_accepted_whatever_modulus_11_says(born: date, serial: int) -> None:
    """Modulus 11 is not guaranteed since 1 October 2007 (docs/privacy.md#cpr)."""
    # Ten in eleven of these serials fail modulus 11.
    assert Cpr(number(born, serial)).reveal() == number(born, serial)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must be ten digits, without hyphen or spaces"),
        ("010136400", "must be ten digits, without hyphen or spaces"),
        ("01013640011", "must be ten digits, without hyphen or spaces"),
        ("010136-4001", "must be ten digits, without hyphen or spaces"),
        ("0101364001\n", "must be ten digits, without hyphen or spaces"),
        ("010136400x", "must be ten digits, without hyphen or spaces"),
        ("٠١٠١٣٦٤٠٠١", "must be ten digits, without hyphen or spaces"),
        ("0" * 10, "is 0000000000, which stands for an unknown person; a real CPR number is needed"),
        ("6101364001", "is a replacement number (day 61 to 91), which cannot be used here"),
        ("9112364001", "is a replacement number (day 61 to 91), which cannot be used here"),
        ("0100364001", "must hold a month that exists (third and fourth digit)"),
        ("0113364001", "must hold a month that exists (third and fourth digit)"),
        ("0001364001", "must hold a day that exists in its month (first and second digit)"),
        ("3201364001", "must hold a day that exists in its month (first and second digit)"),
        ("3104364001", "must hold a day that exists in its month (first and second digit)"),
        ("3002364001", "must hold a day that exists in its month (first and second digit)"),
        ("9201364001", "must hold a day that exists in its month (first and second digit)"),
        (
            "2902334001",
            "holds a leap day, but its year (with the century of the seventh digit) is no leap year",
        ),
    ],
    ids=range(18),
)
def test_each_kind_of_wrong_number_is_refused_with_its_own_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Cpr(text)


@pytest.mark.parametrize(
    ("seventh_digits", "year_of_century", "year"),
    [
        ("0123", 0, 1900),
        ("0123", 99, 1999),
        ("4", 0, 2000),
        ("4", 36, 2036),
        ("4", 37, 1937),
        ("4", 99, 1999),
        ("5678", 0, 2000),
        ("5678", 57, 2057),
        ("5678", 58, 1858),
        ("5678", 99, 1899),
        ("9", 0, 2000),
        ("9", 36, 2036),
        ("9", 37, 1937),
        ("9", 99, 1999),
    ],
)
def test_the_seventh_digit_tells_the_century(seventh_digits: str, year_of_century: int, year: int) -> None:
    """7th digit 0-3: 1900-1999; 4 and 9: YY 00-36 2000s, 37-99 1900s; 5-8: YY 00-57 2000s, 58-99 1800s
    (docs/privacy.md#cpr).
    """
    assert {birth_year(year_of_century, int(digit)) for digit in seventh_digits} == {year}


@given(st.integers(1858, 2057))
def test_a_leap_day_exists_in_leap_years_only(year: int) -> None:
    assert (date_problem(29, 2, year) is None) == isleap(year)


def test_the_century_decides_about_the_leap_day_of_year_00() -> None:
    """2000 was a leap year and 1900 was not."""
    # Given
    leap_day_of_1900 = "290200" + "0" + "001"

    # Then
    assert "no leap year" in (cpr_problem(leap_day_of_1900) or "")
    assert date_problem(29, 2, birth_year(0, 4)) is None


def test_a_cpr_shows_itself_nowhere() -> None:
    """repr, str and JSON are masked, except with `reveal` (docs/privacy.md#cpr)."""
    cpr = Cpr(CPR)
    shown = [
        repr(cpr),
        str(cpr),
        f"{cpr}",
        f"{cpr:>20}",
        f"{cpr!r}",
        "%s" % (cpr,),  # noqa: UP031 - this old way of printing must be masked too
        json.dumps({"cpr": cpr}, default=repr),
        repr(Holder(cpr=cpr)),
        str(Holder(cpr=cpr).model_dump()),
        Holder(cpr=cpr).model_dump_json(),
        Holder(cpr=cpr).model_dump_json(context={"reveal": "yes"}),
        str(dir(cpr)),
    ]
    assert not [text for text in shown if CPR in text]
    assert not hasattr(cpr, "__dict__")


def test_a_cpr_cannot_be_written_as_json_or_pickled_or_changed_by_accident() -> None:
    cpr = Cpr(CPR)
    with pytest.raises(TypeError):
        json.dumps(cpr)
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(cpr)
    with pytest.raises(TypeError, match="never pickled"):
        cpr.__getstate__()
    with pytest.raises(AttributeError):
        cpr.digits = "1"
    with pytest.raises(AttributeError):
        delattr(cpr, "_Cpr__digits")
    assert copy.deepcopy(cpr) is cpr
    assert copy.copy(cpr) is cpr


def test_equal_numbers_are_equal_and_a_string_is_not_a_cpr() -> None:
    assert Cpr(CPR) == Cpr(CPR)
    assert len({Cpr(CPR), Cpr(CPR), Cpr("0101364002")}) == 2
    assert Cpr(CPR) != CPR


def test_a_cpr_is_written_in_clear_only_when_asked_on_purpose() -> None:
    holder = Holder(cpr=Cpr(CPR))
    assert json.loads(holder.model_dump_json(context=REVEAL)) == {"cpr": CPR}
    assert Holder.model_validate_json(holder.model_dump_json(context=REVEAL)) == holder


@given(st.from_regex(r"[0-9]{5,10}", fullmatch=True))
def test_no_sentence_holds_the_digits_that_it_refuses(text: str) -> None:
    if set(text) != {"0"}:
        assert text not in (cpr_problem(text) or "")
