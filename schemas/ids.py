"""Ids that are derived from the requestId, so that every try and every process gives the same one (UUIDv5)."""

from __future__ import annotations

from uuid import UUID, uuid5


def invitation_of(request_id: UUID) -> UUID:
    """The indkaldelseId of a new booking: ours to choose, and the same for every try of one request."""
    return uuid5(request_id, "indkaldelseId")


def report_of(request_id: UUID) -> UUID:
    """The id of the report that a request leads to: the same for every try, at the supplier too."""
    return uuid5(request_id, "reportId")
