"""An nginx that plays a supplier: a server that is not ours, which logs as JSON lines what it got.

It asks for a client certificate and answers 204. Two nested servers, because nginx knows a request's body only
where it passes the request on.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
from pathlib import Path
from typing import Any

from scripts.nginx_dist import nginx
from scripts.processes import Kept, clean_environment, free_port, listens, wait_until
from tests.certificates import Certificates, Pair

LOGGED = {
    "method": "$request_method",
    "uri": "$request_uri",
    "protocol": "$server_protocol",
    "status": "$status",
    "tls": "$ssl_protocol",
    "client": "$ssl_client_s_dn",
    "verified": "$ssl_client_verify",
    "content_type": "$http_content_type",
    "cpr": "$http_x_civilregistrationidentifier",
    "x_request_id": "$http_x_requestid",
    "organisation": "$http_x_activeorganisation",
    "webhook-id": "$http_webhook_id",
    "webhook-timestamp": "$http_webhook_timestamp",
    "webhook-signature": "$http_webhook_signature",
    "body": "$request_body",
}

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
{user}
events {{ worker_connections 64; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_body_buffer_size 128k;
    log_format facts escape=json '{logged}';
    server {{
        listen 127.0.0.1:{inner};
        access_log off;
        location / {{ return 204; }}
    }}
    {servers}
}}
"""

SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_client_certificate {ca};
        ssl_verify_client on;
        access_log {folder}/access.log facts;
        location / {{ proxy_pass http://127.0.0.1:{inner}; }}
    }}
"""


class Nginx:
    """`with Nginx(folder, certificates) as server`: `url` has the right name, `elsewhere` another one's."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self._folder = folder
        self._ports = {"inner": free_port(), "url": free_port(), "elsewhere": free_port()}
        self._certificates = certificates
        self._kept: Kept | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._ports['url']}"

    @property
    def elsewhere(self) -> str:
        return f"https://127.0.0.1:{self._ports['elsewhere']}"

    def __enter__(self) -> Nginx:
        program, environment = nginx()
        file = self._folder / "nginx.conf"
        file.write_text(self._configuration())
        self._kept = Kept(
            [program, "-p", str(self._folder), "-e", str(self._folder / "error.log"), "-c", str(file)],
            log=self._folder / "start.log",
            env=clean_environment(**environment),
        )
        wait_until(
            lambda: all(map(listens, self._ports.values())),
            self._kept,
            timeout_s=20,
            what="nginx",
            log=self._folder / "error.log",
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._kept:
            self._kept.stop()

    def _configuration(self) -> str:
        servers = self._server("url", self._certificates.server)
        servers += self._server("elsewhere", self._certificates.elsewhere)
        return CONFIGURATION.format(
            folder=self._folder,
            user=_user(),
            logged=json.dumps(LOGGED),
            inner=self._ports["inner"],
            servers=servers,
        )

    def _server(self, name: str, pair: Pair) -> str:
        return SERVER.format(
            port=self._ports[name],
            inner=self._ports["inner"],
            cert=pair.cert,
            key=pair.key,
            ca=self._certificates.ca,
            folder=self._folder,
        )

    def got(self) -> list[dict[str, Any]]:
        """Every request that nginx has answered so far, oldest first."""
        log = self._folder / "access.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def complaints(self) -> str:
        """Its error log."""
        return (self._folder / "error.log").read_text()


def _user() -> str:
    """Started by root, nginx would give its workers to a user that cannot enter our folders."""
    if os.geteuid() != 0:
        return ""
    me = pwd.getpwuid(0)
    return f"user {me.pw_name} {grp.getgrgid(me.pw_gid).gr_name};"
