"""Ids derived from the requestId (UUIDv5): every retry in every process gives the same id."""

from __future__ import annotations

from uuid import UUID, uuid5


def invitation_of(request_id: UUID) -> UUID:
    """The indkaldelseId of a new booking. The contract lets the caller choose it; it is the same in every try."""
    return uuid5(request_id, "indkaldelseId")


def report_of(request_id: UUID) -> UUID:
    """The id of the report that a failed request leads to; the supplier receives the same id."""
    return uuid5(request_id, "reportId")
