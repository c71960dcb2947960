"""The composition root of one worker: builds all parts in one `async with` and closes them in reverse order.

Signals have their handlers before anything is opened; SIGTERM during the start ends it at once with code 0.
Stop: cancel the consumers, finish running requests within `stop.drain_seconds`, close RabbitMQ, the systems, the
ledger. An unfinished request is not acknowledged; another process looks it up (docs/architecture.md#startup-and-stop).
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from contextlib import AsyncExitStack
from functools import partial

from broker.clients import Systems
from broker.dead_letters.reconcile import Reconciler
from broker.dead_letters.replayer import Replayer
from broker.errors import RabbitAway
from broker.health.checks import PeriodicChecks
from broker.health.server import HealthServer
from broker.health.vitals import Vitals
from broker.ledger.ledger import Ledger
from broker.ledger.operators.flow import EVERY_S as FLOW_EVERY_S
from broker.ledger.operators.operations import Operations
from broker.ledger.upkeep.retention import Retention
from broker.publisher import Publisher
from broker.rabbitmq import Rabbit
from broker.rabbitmq.consumer import Consumer
from broker.rabbitmq.declare import missing
from broker.rabbitmq.topology import BOOKINGS, CITIZEN_REPORTS, QUERIES, SUSPECTS, dead_queues, lane_of
from broker.reload import Reloads
from broker.reports.delivery import Deliveries
from broker.requests.execution import Execution
from broker.requests.pipeline import Pipeline
from broker.requests.request_spans import carrying
from broker.requests.routes import by_queue
from broker.requests.verifier import Verifier
from broker.scheduler import Chore, Scheduler
from broker.sealing import Sealer
from broker.signals import hangup_during_start
from broker.tasks import StopSignals, cancel_and_wait
from broker.telemetry import log as logging
from broker.telemetry.counters import COUNTERS
from broker.telemetry.log import get_logger
from broker.telemetry.tracing import tracing
from config.checks import notices
from config.directory import Directory
from config.settings import Settings

log = get_logger("app")

EXIT_GAVE_UP = 1
YOUNG_OBJECTS = 10_000
"""New objects before the garbage collector looks for reference cycles among them (Python's default: 700)."""


def serve(settings: Settings, directory: Directory) -> int:
    """Run one worker until it is told to stop; 0 for a clean stop, 1 when the watchdog gave up."""
    logging.configure(settings.log.format, settings.log.level)
    try:
        import uvloop

        return uvloop.run(App(settings, directory).run())
    except ImportError:  # there is no wheel for this platform; the standard loop is slower
        return asyncio.run(App(settings, directory).run())


class App:
    """One worker process."""

    def __init__(self, settings: Settings, directory: Directory) -> None:
        self._settings = settings
        self._directory = directory
        self._stop = StopSignals()
        self._reload = asyncio.Event()
        self._exit_code = 0
        self._vitals = Vitals(key_expiry=settings.health.key_expiry)

    async def run(self) -> int:
        """Run until SIGTERM, SIGINT or the watchdog gives up; returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        if hangup_during_start():
            self._reload.set()
        logging.watch(loop)
        with self._stop.during_start():
            await self._run()
        log.info("stopped", code=self._exit_code)
        return self._exit_code

    async def _run(self) -> None:
        settings = self._settings
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(HealthServer(settings.health, self._vitals))
            await stack.enter_async_context(tracing(settings.tracing))
            sealer = Sealer(settings.keys)
            ledger = await stack.enter_async_context(Ledger.open(settings, sealer))
            systems = await stack.enter_async_context(Systems(settings, self._directory))
            if absent := await missing(settings, self._directory.suppliers):
                raise RabbitAway("; ".join(absent))
            rabbit = await stack.enter_async_context(Rabbit(settings, name=f"jobnet-broker {os.getpid()}"))
            publisher = Publisher(rabbit, sealer)
            verifier = Verifier(settings, ledger, systems)
            execution = Execution(settings, ledger, systems, verifier)
            pipeline = Pipeline(settings, systems, execution, publisher)
            deliveries = Deliveries(settings, ledger, systems, publisher)
            carry = by_queue(requests=carrying(pipeline.carry), lanes=deliveries.carry)
            consumer = Consumer(
                settings,
                rabbit,
                carry,
                queues=self._queues(self._directory),
                ledger=ledger.availability,
                on_give_up=self._give_up,
                on_ready=ledger.set_ready,
            )
            operations = await stack.enter_async_context(Operations.open(settings, sealer))
            flow = operations.rollup(ledger.owner, COUNTERS.counted)
            chores = [*self._chores(operations, rabbit, sealer, systems), Chore(flow.write, FLOW_EVERY_S)]
            scheduler = Scheduler(settings, ledger, systems, verifier, publisher, chores)
            scheduling = asyncio.create_task(scheduler.run())
            scheduling.add_done_callback(self._scheduler_ended)
            stack.push_async_callback(cancel_and_wait, (scheduling,))
            await stack.enter_async_context(consumer)
            self._vitals.rabbit, self._vitals.ledger, self._vitals.consumer = rabbit, ledger, consumer
            ledger.heartbeat.consumer_status = self._vitals.consumer_status
            reloads = Reloads(settings, systems, ledger.lookups, partial(self._use, consumer))
            reloading = asyncio.create_task(reloads.run(self._reload))
            stack.push_async_callback(cancel_and_wait, (reloading,))
            for notice in notices(self._directory):
                log.warning("configuration-notice", reason=notice)
            tune_gc()
            log.info("started", owner=ledger.owner, pid=os.getpid())
            await self._stop.started_and_told()
            self._vitals.stopping = True
            log.info("stopping")
            await cancel_and_wait((reloading,))
            await consumer.drain(settings.stop.drain_seconds)
            await flow.write_last()

    def _use(self, consumer: Consumer, directory: Directory) -> None:
        """Consume the lanes of this directory too, from now on."""
        self._directory = directory
        for queue, prefetch in self._queues(directory).items():
            consumer.consume(queue, prefetch)

    def _chores(
        self, operations: Operations, rabbit: Rabbit, sealer: Sealer, systems: Systems
    ) -> list[Chore]:
        """Periodic tasks: reconciliation of dead-letter queues, replays, retention, health checks."""
        settings = self._settings
        retention = Retention(settings, operations.server)
        letters = Reconciler(settings, operations.places, sealer)
        replayer = Replayer(
            operations.replays,
            sealer,
            rabbit.publish,
            may_reply_to=settings.answers.allows,
            supplier_of=lambda code: supplier_of(systems.directory, code),
            canary_wait=settings.dead.canary_wait_seconds,
        )

        async def pass_over() -> None:
            self._vitals.record_reconciliation(
                await letters.reconcile(dead_queues(systems.directory.suppliers))
            )

        return [
            Chore(replayer.advance, settings.scheduler.tick_seconds),
            Chore(retention.purge_when_due, settings.scheduler.tick_seconds),
            Chore(pass_over, settings.dead.pass_every_seconds),
            *PeriodicChecks(settings, self._vitals, operations, rabbit, systems).chores(),
        ]

    def _queues(self, directory: Directory) -> dict[str, int]:
        """Consumed queues and their prefetch, which is also the concurrency."""
        limits = self._settings.queues
        lanes = {
            lane_of(name): s.lane(self._settings.reports).in_flight for name, s in directory.suppliers.items()
        }
        return {
            QUERIES: limits.queries_prefetch,
            BOOKINGS: limits.bookings_prefetch,
            CITIZEN_REPORTS: limits.citizen_reports_prefetch,
            SUSPECTS: 1,
            **lanes,
        }

    def _scheduler_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.error("scheduler-ended", exc_info=task.exception())
            self._give_up("the scheduler ended by a bug")

    def _give_up(self, why: str) -> None:
        log.error("watchdog-gave-up", reason=why)
        self._exit_code = EXIT_GAVE_UP
        self._stop.tell()


def tune_gc() -> None:
    """Exclude the objects of the start from garbage collection: they live as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def supplier_of(directory: Directory, jobcenter_code: str) -> str | None:
    """The supplier of this jobcenter now; None if the directory does not know the jobcenter."""
    jobcenter = directory.jobcenter(jobcenter_code)
    return jobcenter.supplier if jobcenter else None
