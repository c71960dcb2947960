"""The process of the Jobnet page: `python -m sandbox.jobnet --desk http://127.0.0.1:…`, RabbitMQ in AMQP_URL."""

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
    """Run the Jobnet page and yield its address."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DESK_S)) as http:
        sandbox_client = await SandboxClient.open(DeskClient(desk_url, http))
        async with BrokerClient(amqp_url) as broker:
            store = RequestStore(broker)
            broker.on_event = store.note_event
            runner = web.AppRunner(
                application(store, sandbox_client), access_log=None, shutdown_timeout=STOP_S
            )
            await runner.setup()
            try:
                await web.TCPSite(runner, host, port).start()
                yield f"http://{host}:{runner.addresses[0][1]}"
            finally:
                await runner.cleanup()


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGINT or SIGTERM. When all is up, print the address, the only line of output."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(os.environ["AMQP_URL"], options.desk, host=options.host, port=options.port) as address:
        print(address, flush=True)
        await stop.wait()


def main() -> int:
    """Run the process. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.jobnet", description=__doc__)
    parser.add_argument("--desk", required=True, help="the address of the sandbox's desk")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on; 0: any free one")
    asyncio.run(serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
