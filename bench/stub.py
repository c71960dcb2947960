"""A stub for Planner, booking systems and suppliers: nginx with fixed answers that follow the contract.

Each system has its own path (/s90001 …) on one port. nginx is fast enough not to limit the contestants.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.request import urlopen

from bench.job import CASEWORKER, OFFER, ROOT
from scripts.nginx_dist import nginx
from scripts.processes import Kept, clean_environment, free_port, listens, wait_until

TIMES_A_DAY = 8
BOOKED = {
    "moedetilbudId": OFFER,
    "starttidspunkt": "2035-03-01T09:00:00+01:00",
    "sluttidspunkt": "2035-03-01T09:30:00+01:00",
    "moedeform": "telefonisk",
    "sagsbehandler": {"id": CASEWORKER, "navn": "Anna Lund"},
    "accepteret": True,
    "kanOmbookes": True,
    "kanAflyses": True,
}
CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
{user}
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    access_log off;
    tcp_nodelay on;
    keepalive_requests 100000000;
    keepalive_timeout 65s;
    default_type application/json;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location ~ "^/s[0-9]+{root}/Moedetilbud/[-0-9a-f]+/Tider$" {{ return 200 '{times}'; }}
        location ~ "^/s[0-9]+{root}/Booking/[-0-9a-f]+/action/reserver$" {{ return 200 '{reserved}'; }}
        location ~ "^/s[0-9]+{root}/Booking/([-0-9a-f]+)$" {{ return 201 '{{"indkaldelseId":"$1",{booked}'; }}
        location = /status {{ stub_status; }}
        location ~ "{root}/Fejlmelding$" {{ return 204; }}
    }}
}}
"""


def times() -> str:
    """The body of an answer with the times of one day, all of one caseworker."""
    rows = [
        {
            "starttidspunkt": f"2035-03-01T{9 + n:02d}:00:00+01:00",
            "sluttidspunkt": f"2035-03-01T{9 + n:02d}:30:00+01:00",
            "sagsbehandler": {"id": CASEWORKER, "navn": "Anna Lund"},
            "moedeformer": ["personligtFremmoede", "telefonisk", "digitalt"],
        }
        for n in range(TIMES_A_DAY)
    ]
    return json.dumps({"tider": rows})


class Stub:
    """`with Stub(folder) as stub`. `url` is its address, `pid` that of its keeper process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._kept: Kept | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        return self._kept.pid if self._kept else 0

    def requests(self) -> int:
        """The number of requests that it has answered so far, including this one."""
        with urlopen(f"{self.url}/status", timeout=5) as response:  # noqa: S310  our own loopback server
            line: str = response.read().decode().splitlines()[2]
        return int(line.split()[2])

    def __enter__(self) -> Stub:
        self._folder.mkdir(parents=True, exist_ok=True)
        program, environment = nginx()
        file, log = self._folder / "nginx.conf", self._folder / "error.log"
        file.write_text(self._configuration())
        self._kept = Kept(
            [program, "-p", str(self._folder), "-e", str(log), "-c", str(file)],
            log=self._folder / "start.log",
            env=clean_environment(**environment),
        )
        wait_until(lambda: listens(self._port), self._kept, timeout_s=20, what="nginx", log=log)
        return self

    def __exit__(self, *_: object) -> None:
        if self._kept:
            self._kept.stop()

    def _configuration(self) -> str:
        return CONFIGURATION.format(
            folder=self._folder,
            port=self._port,
            root=ROOT,
            times=times(),
            reserved=json.dumps({"reserveretTil": "2035-03-01T08:00:00+01:00"}),
            booked=json.dumps(BOOKED)[1:],
            user="user root root;" if os.geteuid() == 0 else "",
        )
