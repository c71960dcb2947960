"""The lower bound for report delivery: consume a report, POST it, acknowledge. No retries, no record of attempts."""

from __future__ import annotations

import asyncio
import json

import aio_pika
import aiohttp
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from bench import job


async def main() -> None:
    connection = await aio_pika.connect(job.AMQP_URL)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=job.PREFETCH)
    connector = aiohttp.TCPConnector(limit=job.PREFETCH)
    timeout = aiohttp.ClientTimeout(total=job.HTTP_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def handle(message: AbstractIncomingMessage) -> None:
            body = json.loads(message.body)
            url = f"{job.HTTP_URL}/f{body['jobcenterkode']}{job.ROOT}/Fejlmelding"
            async with session.post(url, headers=job.headers(body), json=body["report"]) as response:
                if response.status == 204:
                    await message.ack()

        queue = await channel.get_queue(job.REPORTS, ensure=False)
        await queue.consume(handle)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
