"""The CPR number as a type that is masked whenever it is printed, formatted or serialised (docs/privacy.md#cpr).

The digits are returned by `reveal()` or with an explicit serialisation context; both are easy to search for. R6 says
what is checked. Modulus 11 is not: since 2007 new numbers need not satisfy it.
"""

from __future__ import annotations

import re
from calendar import monthrange
from typing import Any, ClassVar, Final, NoReturn, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from schemas.fields import latest_of, readable_guid, required_text, wrong

REVEAL: Final[dict[str, Any]] = {"reveal": True}
"""The serialisation context that writes CPR numbers in clear: for sealing and for calls to external systems only."""

_TEN_DIGITS: Final = re.compile(r"[0-9]{10}")
_MASKED: Final = "CPR(**********)"


def birth_year(year_of_century: int, seventh_digit: int) -> int:
    """The full year of birth, from the two digits of the year and the seventh digit (docs/privacy.md#cpr)."""
    if seventh_digit <= 3:
        return 1900 + year_of_century
    if seventh_digit in (4, 9):
        return (2000 if year_of_century <= 36 else 1900) + year_of_century
    return (2000 if year_of_century <= 57 else 1800) + year_of_century


def date_problem(day: int, month: int, year: int) -> str | None:
    """What is wrong with this date of birth, or None if the date exists."""
    if 61 <= day <= 91:
        return "is a replacement number (day 61 to 91), which cannot be used here"
    if not 1 <= month <= 12:
        return "must hold a month that exists (third and fourth digit)"
    if (day, month) == (29, 2) and monthrange(year, month)[1] == 28:
        return "holds a leap day, but its year (with the century of the seventh digit) is no leap year"
    if not 1 <= day <= monthrange(year, month)[1]:
        return "must hold a day that exists in its month (first and second digit)"
    return None


def cpr_problem(text: str) -> str | None:
    """The rule that `text` breaks, as a sentence without any of its digits, or None for a CPR number."""
    if not _TEN_DIGITS.fullmatch(text):
        return "must be ten digits, without hyphen or spaces"
    if text == "0000000000":
        return "is 0000000000, which stands for an unknown person; a real CPR number is needed"
    day, month, year = int(text[0:2]), int(text[2:4]), int(text[4:6])
    return date_problem(day, month, birth_year(year, int(text[6])))


_SHAPE: Final = re.compile(r"(?<!\d)(\d{6})[\s\-\u2010-\u2015\u2212\u00ad._/+]{0,3}(\d{4})(?!\d)")
_NINE_DIGITS: Final = re.compile(r"\d{9}")


def looks_like_cpr(text: str) -> bool:
    """Whether `text` holds ten digits, perhaps with a separator, that begin with a date. Replacement numbers count."""
    if readable_guid(text):
        return False
    return any(_begins_with_date(found[1] + found[2]) for found in _SHAPE.finditer(text))


def _begins_with_date(digits: str) -> bool:
    day, month, year = int(digits[0:2]), int(digits[2:4]), int(digits[4:6])
    day -= 60 if day > 60 else 0
    return date_problem(day, month, birth_year(year, int(digits[6]))) is None


_LOOKS_LIKE_CPR: Final = "must not look like a CPR number"


def without_cpr(text: str, info: ValidationInfo) -> str:
    """`text` of an arrival, unless it looks like a CPR number."""
    # These texts leave in the address of a call, and servers and proxies on the way log addresses.
    if latest_of(info) is not None and looks_like_cpr(text):
        raise wrong(_LOOKS_LIKE_CPR)
    return text


def group_without_cpr(group: str | None, info: ValidationInfo) -> str | None:
    """A kontaktgruppe of an arrival, unless it looks like a CPR number, also one that lost its leading zero."""
    if group is None:
        return None
    return without_cpr(f"0{group}" if _NINE_DIGITS.fullmatch(group) else group, info) and group


class Cpr:
    """A valid CPR number. Printing it gives a mask, and pickling it is refused.

    Raises ValueError with the rule that failed, without any digit of the number.
    """

    __slots__ = ("__digits",)
    __digits: str
    MASKED: ClassVar[str] = _MASKED

    def __init__(self, digits: str) -> None:
        problem = cpr_problem(digits)
        if problem is not None:
            raise ValueError(problem)
        object.__setattr__(self, "_Cpr__digits", digits)

    def reveal(self) -> str:
        """The ten digits: only for sealing, search tokens and the header of a call to an external system."""
        return self.__digits

    def __eq__(self, other: object) -> bool:
        return self.__digits == other.__digits if isinstance(other, Cpr) else NotImplemented

    def __hash__(self) -> int:
        return hash((Cpr, self.__digits))

    def __repr__(self) -> str:
        return _MASKED

    def __format__(self, spec: str) -> str:
        return format(_MASKED, spec)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Cpr does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Cpr does not change")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Cpr is never pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Cpr is never pickled")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(cls._serialise, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "pattern": "^[0-9]{10}$"}

    @classmethod
    def _validate(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        text = required_text(value, "a string of ten digits")
        problem = cpr_problem(text)
        if problem is not None:
            raise wrong(problem)
        return cls(text)

    def _serialise(self, info: core_schema.SerializationInfo) -> str:
        context = info.context
        return self.__digits if isinstance(context, dict) and context.get("reveal") is True else _MASKED
