"""The CPR number as a type that keeps its secret.

It prints, formats and serialises masked; the digits come out by `reveal()` or by an explicit serialisation
context, both easy to search for. Checked by DESIGN 3 rule 6; modulus 11 deliberately is not, because new
numbers need not satisfy it since 2007 (domain.md W46).
"""

from __future__ import annotations

import re
from calendar import monthrange
from typing import Any, ClassVar, Final, NoReturn, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from schemas.fields import required_text, wrong

REVEAL: Final[dict[str, Any]] = {"reveal": True}
"""The serialisation context that writes CPR numbers in clear: for sealing and for the call outside only."""

_TEN_DIGITS: Final = re.compile(r"[0-9]{10}")
_MASKED: Final = "CPR(**********)"


def birth_year(year_of_century: int, seventh_digit: int) -> int:
    """The full year that the last two digits and the seventh digit mean (domain.md W45)."""
    if seventh_digit <= 3:
        return 1900 + year_of_century
    if seventh_digit in (4, 9):
        return (2000 if year_of_century <= 36 else 1900) + year_of_century
    return (2000 if year_of_century <= 57 else 1800) + year_of_century


def date_problem(day: int, month: int, year: int) -> str | None:
    """What is wrong with this birth date, or None if the day exists."""
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


class Cpr:
    """A checked CPR number. Equal numbers are equal; whatever would show or store one is masked or refused.

    Raises ValueError with the rule that failed, never with a digit of the number.
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
        """The ten digits: only for sealing, search tokens and the header of a call outside."""
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
