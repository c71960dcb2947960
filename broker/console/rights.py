"""Roles and their rights. What no role gives is forbidden to everybody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType


class Right(StrEnum):
    """What a user may do."""

    SEE = "see"
    """Every page without personal data."""
    LANES = "lanes"
    """Pause and resume a supplier's lane, send it a test report."""
    REPLAY = "replay"
    """Prepare, start, stop and resume replays; have a dead booking verified."""
    DISCARD = "discard"
    """Discard letters and restore them."""
    REVEAL = "reveal"
    """Reveal one personal field once, with a reason; find what is known about a citizen."""
    SESSIONS = "sessions"
    """See who is logged in, and end a session."""


ROLES: Mapping[str, frozenset[Right]] = MappingProxyType(
    {
        "viewer": frozenset({Right.SEE}),
        "operator": frozenset({Right.SEE, Right.LANES, Right.REPLAY, Right.DISCARD}),
        "privacy": frozenset({Right.SEE, Right.REVEAL}),
        # Not REVEAL: administration needs no access to citizens' data (ADR 15). A user can have both roles.
        "admin": frozenset({Right.SEE, Right.LANES, Right.REPLAY, Right.DISCARD, Right.SESSIONS}),
    }
)


def rights_of(roles: Iterable[str]) -> frozenset[Right]:
    """The rights of all these roles together; an unknown role gives none."""
    return frozenset().union(*(ROLES.get(role, frozenset()) for role in roles))
