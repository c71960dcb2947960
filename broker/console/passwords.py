"""Log-in by name and password: the same work and the same words whoever asks, and a limit on tries.

A name that does not exist is checked against a hash of nobody's password. Tries are counted in a fixed number of
places that names are spread over by a keyed hash, so that no flood of names takes memory or pushes a count out.
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

PLACES = 4096
AT_ONCE = 2
MOST_WAITING = 20
MOST_PASSWORD = 1024
LEAST_PASSWORD = 12

# Memory, time and lanes as RFC 9106 has them for machines without memory to spare.
HASHER = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4)


class TooMany(BrokerError):
    """This name was tried too often, or too many log in at once; `seconds` until it makes sense again."""

    def __init__(self, seconds: float) -> None:
        super().__init__("too many attempts to log in; try again later")
        self.seconds = seconds


class LoginTries:
    """How often each name was tried in its window. Two names in one place share a count, which hurts no one much."""

    def __init__(self, most: int, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._window, self._clock = most, window, clock
        self._key = secrets.token_bytes(32)
        self._counts = [0] * PLACES
        self._since = [float("-inf")] * PLACES

    def count(self, name: str) -> None:
        """One more try, counted before its password is looked at. Raises TooMany."""
        place, now = self._place(name), self._clock()
        if now - self._since[place] >= self._window:
            self._counts[place], self._since[place] = 0, now
        if self._counts[place] >= self._most:
            raise TooMany(self._since[place] + self._window - now)
        self._counts[place] += 1

    def forget(self, name: str) -> None:
        """The name has logged in."""
        self._counts[self._place(name)] = 0

    def _place(self, name: str) -> int:
        return int.from_bytes(hmac.digest(self._key, name.encode(), "sha256")[:4]) % PLACES


class Passwords:
    """Checks names and passwords of the configured users."""

    def __init__(self, settings: ConsoleSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._users = settings.users
        self._tries = LoginTries(settings.login_attempts, settings.login_window_seconds, clock)
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobody = _nobody(settings)

    async def check(self, name: str, password: str) -> ConsoleUser | None:
        """The user, if the password is his. Raises TooMany."""
        self._tries.count(name)
        user = self._users.get(name)
        hash_ = user.password_hash if user and user.password_hash else None
        good = await self._verify(hash_.get_secret_value() if hash_ else self._nobody, password)
        if not (good and user and hash_):
            return None
        self._tries.forget(name)
        return user

    async def _verify(self, hash_: str, password: str) -> bool:
        """On a thread, few at once: each takes tens of megabytes."""
        if self._waiting >= MOST_WAITING:
            raise TooMany(1)
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(_same, hash_, password)
        finally:
            self._waiting -= 1


def hashed(password: str) -> str:
    """For the configuration."""
    return HASHER.hash(password)


def _same(hash_: str, password: str) -> bool:
    try:
        return len(password) <= MOST_PASSWORD and HASHER.verify(hash_, password)
    except (Argon2Error, InvalidHashError, UnicodeError):
        return False


def _nobody(settings: ConsoleSettings) -> str:
    """A hash of nobody's password that costs what a user's costs; without users, what ours cost."""
    hashes = [user.password_hash.get_secret_value() for user in settings.users.values() if user.password_hash]
    hasher = PasswordHasher.from_parameters(extract_parameters(hashes[0])) if hashes else HASHER
    return hasher.hash(secrets.token_urlsafe(32))
