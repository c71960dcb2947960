"""The process: `python -m sandbox.jobnet --desk http://127.0.0.1:…`, with RabbitMQ's address in AMQP_URL."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from sandbox.desk_client import DeskClient
from sandbox.jobnet.broker_client import BrokerClient
from sandbox.jobnet.request_store import RequestStore
from sandbox.jobnet.sandbox_client import SandboxClient
from sandbox.jobnet.web import application
from sandbox.system import STOP_S

DESK_S = 10.0


@asynccontextmanager
async def serving(
    amqp_url: str, desk_url: str, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """The Jobnet page, up; its address."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DESK_S)) as http:
        sandbox_client = await SandboxClient.open(DeskClient(desk_url, http))
        async with BrokerClient(amqp_url) as asking:
            store = RequestStore(asking)
            asking.heard = store.heard
            runner = web.AppRunner(
                application(store, sandbox_client), access_log=None, shutdown_timeout=STOP_S
            )
            await runner.setup()
            try:
                await web.TCPSite(runner, host, port).start()
                yield f"http://{host}:{runner.addresses[0][1]}"
            finally:
                await runner.cleanup()


async def serve(chosen: argparse.Namespace) -> None:
    """Run until SIGINT or SIGTERM. The address is the one line on standard output, when all is up."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with serving(os.environ["AMQP_URL"], chosen.desk, host=chosen.host, port=chosen.port) as address:
        print(address, flush=True)
        await ended.wait()


def main() -> int:
    """The process."""
    options = argparse.ArgumentParser(prog="python -m sandbox.jobnet", description=__doc__)
    options.add_argument("--desk", required=True, help="the address of the sandbox's desk")
    options.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    options.add_argument("--port", type=int, default=0, help="the port to listen on; 0: any free one")
    asyncio.run(serve(options.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
