"""Who may do what: roles and their rights, as data. What is not written here nobody may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType


class Right(StrEnum):
    """One kind of thing that a user may or may not do."""

    SEE = "see"
    """Every page without personal data."""
    LANES = "lanes"
    """Pause and resume a supplier's lane, send it a test report."""
    REPLAY = "replay"
    """Prepare, start, stop and resume replays; have a dead booking verified."""
    DISCARD = "discard"
    """Put letters aside, and take that back."""
    REVEAL = "reveal"
    """One personal field, once, for a reason."""
    SESSIONS = "sessions"
    """See who is logged in, and end a session."""


ROLES: Mapping[str, frozenset[Right]] = MappingProxyType(
    {
        "viewer": frozenset({Right.SEE}),
        "operator": frozenset({Right.SEE, Right.LANES, Right.REPLAY, Right.DISCARD}),
        "privacy": frozenset({Right.SEE, Right.REVEAL}),
        # Not REVEAL: who runs the place need not read about citizens. Who needs both has both roles.
        "admin": frozenset({Right.SEE, Right.LANES, Right.REPLAY, Right.DISCARD, Right.SESSIONS}),
    }
)


def rights_of(roles: Iterable[str]) -> frozenset[Right]:
    """Everything that any of the roles gives; an unknown role gives nothing."""
    return frozenset().union(*(ROLES.get(role, frozenset()) for role in roles))
