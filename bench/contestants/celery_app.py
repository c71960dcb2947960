"""The job on Celery: a task that sends its answer and its event as further tasks.

Quorum queues, publisher confirms, late acknowledgement and no results, as its documentation describes; threads, because
the work is I/O.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from bench import job
from bench.contestants.sync_calls import book

THREADS = 8


def _queue(name: str) -> Queue:
    return Queue(name, Exchange(""), routing_key=name, queue_arguments={"x-queue-type": "quorum"})


app = Celery("bench", broker=job.AMQP_URL.replace("amqp://", "pyamqp://", 1))
app.conf.update(
    task_queues=[_queue(name) for name in (job.BOOKINGS, job.ANSWERS, job.EVENTS)],
    task_default_queue_type="quorum",
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=max(1, job.PREFETCH // THREADS),
    worker_detect_quorum_queues=True,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
)


@app.task(name="handle")
def handle(body: dict[str, Any]) -> None:
    booking = book(body)
    app.send_task("answer", args=[job.answer(body, booking)], queue=job.ANSWERS)
    app.send_task("event", args=[job.event(body)], queue=job.EVENTS)
