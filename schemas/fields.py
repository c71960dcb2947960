"""The field types of the messages. Each refuses a wrong value with a sentence that says what is allowed.

They accept the documented form only: no epoch numbers for instants, no "true" for a bool, no numbers for strings.
Instants keep the offset they came with; a comparison compares the points in time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.codes import ErrorCode, MeetingForm
from schemas.times_cursor import LONGEST_CURSOR, TimesCursor
from schemas.wire import SENTENCE


def wrong(sentence: str) -> PydanticCustomError:
    """A validation error with this sentence, which must not repeat any input."""
    # The sentence is an argument: in a template, braces would have a meaning.
    return PydanticCustomError(SENTENCE, "{sentence}", {"sentence": sentence})


LATEST: Final = "latest"
"""Key in the validation context of an arrival: the latest `sentAt` that is accepted."""


def latest_of(info: ValidationInfo) -> datetime | None:
    """The latest `sentAt` that is accepted; None for a message that is read back from the ledger."""
    # A message that an earlier release accepted and stored must stay readable, so some checks are for arrivals only.
    latest: datetime | None = (info.context or {}).get(LATEST)
    return latest


def required_text(value: object, kind: str = "a string") -> str:
    """`value` if it is a string. Raises the validation error for None and for other types."""
    if value is None:
        raise wrong("is required")
    if not isinstance(value, str):
        raise wrong(f"must be {kind}")
    return value


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _text(longest: int) -> Callable[[object], str]:
    def check(value: object) -> str:
        text = required_text(value)
        if not 1 <= len(text) <= longest:
            raise wrong(f"must be 1 to {longest} characters")
        if _CONTROL.search(text):
            raise wrong("must not hold control characters")
        return text

    return check


_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(?P<offset>Z|[+-][0-9]{2}:[0-9]{2})?"
)
_INSTANT_KIND: Final = "a date and time such as 2026-03-02T13:00:00+01:00"
_NO_OFFSET: Final = "must carry an offset such as +01:00"


def _parse_instant(text: str) -> datetime:
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise wrong(f"must be {_INSTANT_KIND}")
    if match["offset"] is None:
        raise wrong(_NO_OFFSET)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise wrong("is not a date and time that exists") from None


def _in_calendar(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise wrong(_NO_OFFSET)
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise wrong("is outside the calendar") from None
    return moment


# A booking system returns the same times again and again; from the cache each costs a twentieth. An exception is not
# cached.
@lru_cache(maxsize=4096)
def _written_instant(text: str) -> datetime:
    return _in_calendar(_parse_instant(text))


def _instant(value: object) -> datetime:
    if isinstance(value, datetime):
        return _in_calendar(value)
    return _written_instant(required_text(value, _INSTANT_KIND))


_FIRST_YEAR, _LAST_YEAR = 2000, 2999


def _near(moment: datetime) -> datetime:
    # Adding or subtracting some minutes must never leave the range of datetime.
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise wrong(f"must lie between the years {_FIRST_YEAR} and {_LAST_YEAR}")
    return moment


_GUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_GUID_KIND: Final = "a UUID such as 6f1c2a34-9b0d-4e57-8a61-0c2d3e4f5a6b"


def _guid(value: object) -> UUID:
    if isinstance(value, UUID):
        return value
    text = required_text(value, _GUID_KIND)
    if not _GUID.fullmatch(text):
        raise wrong(f"must be {_GUID_KIND}")
    return UUID(text)


def _not_nil(value: UUID, info: ValidationInfo) -> UUID:
    # Programs send the nil UUID for "none"; as an id it would make strangers' messages equal.
    if value.int == 0 and latest_of(info) is not None:
        raise wrong("must not be the nil UUID, which stands for no id")
    return value


def readable_guid(value: object) -> UUID | None:
    """`value` as a UUID if it is a string in the usual form, else None."""
    return UUID(value) if isinstance(value, str) and _GUID.fullmatch(value) else None


_JOBCENTER: Final = re.compile(r"[0-9]{5}")


def _jobcenter_code(value: object) -> str:
    code = required_text(value, "a string of five digits")
    if not _JOBCENTER.fullmatch(code):
        raise wrong("must be five digits")
    return code


LONGEST_CONTACT_GROUP: Final = 20


def _contact_group(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < 10**LONGEST_CONTACT_GROUP:
            raise wrong(f"must be a whole number of at most {LONGEST_CONTACT_GROUP} digits, or a string")
        return str(value)
    if value is not None and not isinstance(value, str):
        raise wrong("must be a string or a whole number")
    if value is None or not value.strip():
        return None
    return _text(LONGEST_CONTACT_GROUP)(value).strip()


LONGEST_ERROR_TEXT: Final = 500
"""Fejltekst is String(500) in the contract: Unicode code points after NFC (R5)."""

_LINE_BREAK: Final = re.compile("\r\n?")
_CONTROL_BUT_LINE_BREAK: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")


def _error_text(value: object) -> str:
    """The text in NFC, with every line break (CR LF and CR too) as one LF.

    Other control characters, tabs included, are refused. Whitespace at both ends stays: it is the citizen's text.
    """
    text = required_text(value)
    if _HALF_PAIR.search(text):
        raise wrong("must not hold half a surrogate pair")
    text = unicodedata.normalize("NFC", _LINE_BREAK.sub("\n", text))
    if not text.strip():
        raise wrong("is empty")
    if len(text) > LONGEST_ERROR_TEXT:
        # The length is not personal data, and the citizen needs it to shorten the text.
        raise wrong(f"is {len(text)} characters long; at most {LONGEST_ERROR_TEXT} are allowed")
    if _CONTROL_BUT_LINE_BREAK.search(text):
        raise wrong("must not hold control characters other than line breaks")
    return text


def _times_page(value: object) -> str:
    text = required_text(value)
    try:
        if len(text) > LONGEST_CURSOR:
            raise ValueError
        TimesCursor.read(text)
    except (ValueError, TypeError, RecursionError):
        raise wrong("must be the naesteSide of an earlier answer") from None
    return text


ERROR_CODES: Final = "2 (ingen mødetider), 3 (ingen mødetilbud) or 4 (andet problem)"


def _error_code(value: object) -> ErrorCode:
    if value is None:
        raise wrong("is required")
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(f"must be a whole number: {ERROR_CODES}")
    if value not in set(ErrorCode):
        raise wrong(f"must be {ERROR_CODES}")
    return ErrorCode(value)


def _absent(instead: str) -> Callable[[object], None]:
    def check(value: object) -> None:
        if value is not None:
            raise wrong(f"must be left out: {instead}")

    return check


@lru_cache(maxsize=256)  # few combinations, used for every time of every response
def _in_order(forms: tuple[MeetingForm, ...]) -> tuple[MeetingForm, ...]:
    return tuple(sorted(set(forms), key=lambda form: form.order))


def _string(**more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **more})


_INSTANT_SCHEMA: Final = _string(format="date-time", pattern=r"(Z|[+-][0-9]{2}:[0-9]{2})$")

Flag = Annotated[bool, Strict()]
"""true or false."""

Whole = Annotated[int, Strict()]
"""A whole number, not a string of digits."""

Guid = Annotated[UUID, BeforeValidator(_guid), _string(format="uuid")]
"""A UUID in the usual form, 8-4-4-4-12."""

RequestGuid = Annotated[
    UUID, AfterValidator(_not_nil), BeforeValidator(_guid), _string(format="uuid", pattern="[^0-]")
]
"""A UUID in a request: not the nil UUID."""

Instant = Annotated[datetime, BeforeValidator(_instant), _INSTANT_SCHEMA]
"""A date and time with offset (RFC 3339) that can be converted to UTC."""

RequestInstant = Annotated[datetime, AfterValidator(_near), BeforeValidator(_instant), _INSTANT_SCHEMA]
"""An instant in a request: between the years 2000 and 2999."""

JobcenterCode = Annotated[str, BeforeValidator(_jobcenter_code), _string(pattern="^[0-9]{5}$")]
"""JobCenterCode, five digits (docs/contract.md#messages)."""

CaseworkerId = Annotated[str, BeforeValidator(_text(255)), _string(minLength=1, maxLength=255)]
"""CaseWorkerIdentifier, 1 to 255 characters (docs/contract.md#messages)."""

FailureText = Annotated[
    str,
    BeforeValidator(_error_text),
    _string(minLength=1, maxLength=LONGEST_ERROR_TEXT, pattern=r"\S"),
]
"""A fejltekst. The JSON Schema counts the text as sent; a text that is not in NFC may count longer there."""

FailureCode = Annotated[
    ErrorCode,
    BeforeValidator(_error_code),
    WithJsonSchema({"type": "integer", "enum": [int(code) for code in ErrorCode]}),
]
"""A fejlkode of Jobnet as a number (R4)."""

ContactGroup = Annotated[
    str | None,
    BeforeValidator(_contact_group),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": LONGEST_CONTACT_GROUP},
                {"type": "integer", "minimum": 0},
                {"type": "null"},
            ]
        }
    ),
]
"""A kontaktgruppe as string or number. An empty string and null are valid: the citizen has none."""

TimesPage = Annotated[
    str,
    BeforeValidator(_times_page),
    _string(minLength=1, maxLength=LONGEST_CURSOR, pattern="^[A-Za-z0-9_-]+$"),
]
"""A cursor of query.times, as an answer gave it."""

NoOffer = Annotated[None, BeforeValidator(_absent("this type names its meeting by indkaldelseId"))]
"""A moedetilbudId in a type that must not have one (R7)."""

NoInvitation = Annotated[None, BeforeValidator(_absent("this type names its offer by moedetilbudId"))]
"""An indkaldelseId in a type that must not have one (R7)."""

Forms = Annotated[tuple[MeetingForm, ...], Field(min_length=1, max_length=20), AfterValidator(_in_order)]
"""At least one mødeform, without repeats, in the order of R2."""
