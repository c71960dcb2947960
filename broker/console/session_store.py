"""Sessions of logged-in users, in memory. They end by idleness, age, number, an admin, a logout or a restart.

Only a hash of the cookie's secret is stored, so the stored data cannot be used to log in.
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
    """A user's session. `key` is the hash of the cookie's secret; `token` is in every form of the session."""

    key: str
    name: str
    roles: tuple[str, ...]
    method: str
    """How the user logged in: password, one-time link or proxy."""
    started: float
    seen: float
    token: str = field(repr=False)
    note: str | None = None
    ended: bool = False

    @property
    def rights(self) -> frozenset[Right]:
        """The rights of this user."""
        return rights_of(self.roles)


class Sessions:
    """All sessions. No method awaits anything, so no lock is needed."""

    def __init__(self, settings: ConsoleSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def begin(self, name: str, roles: tuple[str, ...], method: str) -> tuple[str, Session]:
        """Start a session; returns its cookie's secret and the session."""
        secret = secrets.token_urlsafe(32)
        return secret, self._add(_key(secret), name, roles, method)

    def find(self, secret: str, *, background: bool = False) -> Session | None:
        """The live session of this secret. `background` requests do not count as activity."""
        return self._live(_key(secret), background)

    def proxy_session(self, name: str, roles: tuple[str, ...]) -> Session:
        """The session of a user named by a trusted proxy; started if there is none."""
        key = _key(f"proxy {name}")
        found = self._live(key, background=False)
        return found or self._add(key, name, roles, "proxy")

    def end(self, key: str) -> bool:
        """End the session; returns whether it existed."""
        session = self._sessions.pop(key, None)
        if session:
            session.ended = True
        return session is not None

    def live(self) -> list[Session]:
        """All live sessions, the most recently active first."""
        self._remove_expired()
        return sorted(self._sessions.values(), key=lambda session: -session.seen)

    def alive(self, session: Session) -> bool:
        """Whether the session is still live; for streams, which outlast one request."""
        return not session.ended and not self._expired(session)

    def age(self, session: Session) -> tuple[float, float]:
        """Seconds since the session started, and since its user was last active."""
        now = self._clock()
        return now - session.started, now - session.seen

    def _add(self, key: str, name: str, roles: tuple[str, ...], method: str) -> Session:
        self._remove_expired()
        while len(self._sessions) >= self._settings.sessions_most:
            self.end(min(self._sessions.values(), key=lambda session: session.seen).key)
        now = self._clock()
        session = Session(key, name, roles, method, now, now, secrets.token_urlsafe(32))
        self._sessions[key] = session
        return session

    def _live(self, key: str, background: bool) -> Session | None:
        session = self._sessions.get(key)
        if session is None:
            return None
        if self._expired(session):
            self.end(key)
            return None
        if not background:
            session.seen = self._clock()
        return session

    def _expired(self, session: Session) -> bool:
        since_start, since_seen = self.age(session)
        limits = self._settings
        return since_start >= limits.session_most_seconds or since_seen >= limits.session_idle_seconds

    def _remove_expired(self) -> None:
        for key in [key for key, session in self._sessions.items() if self._expired(session)]:
            self.end(key)


def _key(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
