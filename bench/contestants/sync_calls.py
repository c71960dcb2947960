"""The three calls of a booking with `requests`, for workers with threads: one session per thread."""

from __future__ import annotations

import threading
from typing import Any

import requests

from bench import job

_local = threading.local()


def book(body: dict[str, Any]) -> dict[str, Any]:
    """Make the three calls; the same as `bare.book`."""
    session: requests.Session | None = getattr(_local, "session", None)
    if session is None:
        session = _local.session = requests.Session()
    times = session.get(job.times_url(body), headers=job.headers(body), timeout=job.HTTP_TIMEOUT_S)
    times.raise_for_status()
    if not job.is_offered(body, times.json()):
        raise LookupError("that time is not offered")
    wish = job.wish(body)
    for url in (job.reserve_url(body), job.booking_url(body)):
        reply = session.post(url, headers=job.headers(body), json=wish, timeout=job.HTTP_TIMEOUT_S)
        reply.raise_for_status()
    booking: dict[str, Any] = reply.json()
    return booking
