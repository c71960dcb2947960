"""The cursor of `query.times`: where the next page of times begins. Frontends treat it as one opaque string."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

LONGEST_CURSOR: Final = 1500
"""Characters; a caseworker's id may have 255 characters of four bytes each."""


@dataclass(frozen=True, slots=True)
class TimesCursor:
    """The last time of a page: its start and its caseworker."""

    # A place and not a number: times that are taken between two pages must not make others skipped.

    starts_at: datetime
    caseworker_id: str

    def __str__(self) -> str:
        content = json.dumps([self.starts_at.isoformat(), self.caseworker_id], ensure_ascii=False)
        return base64.urlsafe_b64encode(content.encode("utf-8", "replace")).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Self:
        """The cursor that `str` wrote. Raises ValueError for every other text."""
        padded = text + "=" * (-len(text) % 4)
        starts_at, caseworker_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(starts_at, str) or not isinstance(caseworker_id, str):
            raise ValueError("not a cursor")
        moment = datetime.fromisoformat(starts_at)
        if moment.utcoffset() is None or not 1900 <= moment.year <= 2999:
            raise ValueError("not a cursor")
        return cls(moment, caseworker_id)
