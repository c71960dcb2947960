"""The job on Dramatiq: an actor that sends its answer and its event to further actors' queues.

With publisher confirms. Dramatiq declares classic queues; the override below makes its work queues quorum queues.
"""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench import job
from bench.contestants.sync_calls import book

ANSWERS, EVENTS = "dramatiq.answers", "dramatiq.events"


class QuorumBroker(RabbitmqBroker):
    """Declares work queues as quorum queues, like the other contestants."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


broker = QuorumBroker(url=job.AMQP_URL, confirm_delivery=True)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=ANSWERS)
def answer(body: dict[str, Any]) -> None:
    """The answer queue. The load generator consumes it."""


@dramatiq.actor(queue_name=EVENTS)
def event(body: dict[str, Any]) -> None:
    """The queue of outcome events. Nothing consumes it."""


@dramatiq.actor(queue_name=job.BOOKINGS)
def handle(body: dict[str, Any]) -> None:
    booking = book(body)
    answer.send(job.answer(body, booking))
    event.send(job.event(body))


broker.declare_queue(ANSWERS, ensure=True)
