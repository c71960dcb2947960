"""Who is logged in: sessions in memory, bounded in number, ended by idleness, by age, by a person or by a restart.

Only a hash of the cookie's secret is kept, so that nothing here can be used to log in.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.console.rights import Right, rights_of
from config.console_section import ConsoleSettings


@dataclass
class Session:
    """One user's stay. `key` names it without opening it; `token` goes into every form of it."""

    key: str
    name: str
    roles: tuple[str, ...]
    way: str
    started: float
    seen: float
    token: str = field(repr=False)
    note: str | None = None
    ended: bool = False

    @property
    def rights(self) -> frozenset[Right]:
        """What this user may do."""
        return rights_of(self.roles)


class Sessions:
    """All of them. Nothing waits here, so no lock is needed."""

    def __init__(self, settings: ConsoleSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._all: dict[str, Session] = {}

    def begin(self, name: str, roles: tuple[str, ...], way: str) -> tuple[str, Session]:
        """A new session, and the secret that its cookie carries."""
        secret = secrets.token_urlsafe(32)
        return secret, self._add(_key(secret), name, roles, way)

    def find(self, secret: str, *, quietly: bool = False) -> Session | None:
        """The live session of this secret; `quietly` does not count as a sign of life."""
        return self._live(_key(secret), quietly)

    def of_proxy(self, name: str, roles: tuple[str, ...]) -> Session:
        """The session of a user whom a trusted proxy names; it begins when there is none."""
        key = _key(f"proxy {name}")
        found = self._live(key, quietly=False)
        return found or self._add(key, name, roles, "proxy")

    def end(self, key: str) -> bool:
        """Whether there was one."""
        session = self._all.pop(key, None)
        if session:
            session.ended = True
        return session is not None

    def live(self) -> list[Session]:
        """All that have not ended, the last seen first."""
        self._sweep()
        return sorted(self._all.values(), key=lambda session: -session.seen)

    def alive(self, session: Session) -> bool:
        """Whether it still is; for what goes on longer than one request."""
        return not session.ended and not self._over(session)

    def age(self, session: Session) -> tuple[float, float]:
        """Seconds since it began and since it was last seen."""
        now = self._clock()
        return now - session.started, now - session.seen

    def _add(self, key: str, name: str, roles: tuple[str, ...], way: str) -> Session:
        self._sweep()
        while len(self._all) >= self._settings.sessions_most:
            self.end(min(self._all.values(), key=lambda session: session.seen).key)
        now = self._clock()
        session = Session(key, name, roles, way, now, now, secrets.token_urlsafe(32))
        self._all[key] = session
        return session

    def _live(self, key: str, quietly: bool) -> Session | None:
        session = self._all.get(key)
        if session is None:
            return None
        if self._over(session):
            self.end(key)
            return None
        if not quietly:
            session.seen = self._clock()
        return session

    def _over(self, session: Session) -> bool:
        since_start, since_seen = self.age(session)
        limits = self._settings
        return since_start >= limits.session_most_seconds or since_seen >= limits.session_idle_seconds

    def _sweep(self) -> None:
        for key in [key for key, session in self._all.items() if self._over(session)]:
            self.end(key)


def _key(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
