"""Login by name and password, with a limit on tries.

Unknown names cost the same work and get the same answer as known ones: they are checked against a dummy hash. Tries
are counted in a fixed number of counters, chosen by a keyed hash of the name. So a flood of names takes no memory
and evicts no count.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError

from broker.errors import BrokerError
from config.console_section import ConsoleSettings, ConsoleUser

COUNTERS = 4096
AT_ONCE = 2
"""Passwords checked at the same time; each check takes tens of megabytes."""
MOST_WAITING = 20
"""Logins that are checked or wait for a check."""
MAX_PASSWORD_LENGTH = 1024
MIN_PASSWORD_LENGTH = 12

# The parameters that RFC 9106 recommends for machines with little memory.
HASHER = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4)


class TooMany(BrokerError):
    """Too many tries for this name, or too many logins at once. Worth trying again after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__("too many attempts to log in; try again later")
        self.seconds = seconds


class LoginTries:
    """Login tries for each name in a time window. Names with the same counter share the limit, which is rare."""

    def __init__(self, most: int, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._window, self._clock = most, window, clock
        self._key = secrets.token_bytes(32)
        self._counts = [0] * COUNTERS
        self._since = [float("-inf")] * COUNTERS

    def count(self, name: str) -> None:
        """Count one try, before the password is checked. Raises TooMany."""
        counter, now = self._counter(name), self._clock()
        if now - self._since[counter] >= self._window:
            self._counts[counter], self._since[counter] = 0, now
        if self._counts[counter] >= self._most:
            raise TooMany(self._since[counter] + self._window - now)
        self._counts[counter] += 1

    def forget(self, name: str) -> None:
        """Reset the count, because the user has logged in."""
        self._counts[self._counter(name)] = 0

    def _counter(self, name: str) -> int:
        return int.from_bytes(hmac.digest(self._key, name.encode(), "sha256")[:4]) % COUNTERS


class Passwords:
    """Checks names and passwords of the users in the settings."""

    def __init__(self, settings: ConsoleSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._users = settings.users
        self._tries = LoginTries(settings.login_attempts, settings.login_window_seconds, clock)
        self._checks = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._dummy_hash = _dummy_hash(settings)

    async def check(self, name: str, password: str) -> ConsoleUser | None:
        """The user, or None if the name or the password is wrong. Raises TooMany."""
        self._tries.count(name)
        user = self._users.get(name)
        secret = user.password_hash if user and user.password_hash else None
        matches = await self._verify(secret.get_secret_value() if secret else self._dummy_hash, password)
        if not (matches and user and secret):
            return None
        self._tries.forget(name)
        return user

    async def _verify(self, password_hash: str, password: str) -> bool:
        """In a thread, AT_ONCE at a time."""
        if self._waiting >= MOST_WAITING:
            raise TooMany(1)
        self._waiting += 1
        try:
            async with self._checks:
                return await asyncio.to_thread(_matches, password_hash, password)
        finally:
            self._waiting -= 1


def hash_password(password: str) -> str:
    """The argon2 hash of a password, for the settings."""
    return HASHER.hash(password)


def _matches(password_hash: str, password: str) -> bool:
    try:
        return len(password) <= MAX_PASSWORD_LENGTH and HASHER.verify(password_hash, password)
    except (Argon2Error, InvalidHashError, UnicodeError):
        return False


def _dummy_hash(settings: ConsoleSettings) -> str:
    """A hash that no password matches, with the cost parameters of the first user's hash, or else of HASHER."""
    hashes = [user.password_hash.get_secret_value() for user in settings.users.values() if user.password_hash]
    hasher = PasswordHasher.from_parameters(extract_parameters(hashes[0])) if hashes else HASHER
    return hasher.hash(secrets.token_urlsafe(32))
