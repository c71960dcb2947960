"""Advances replays: one step of each active replay, and its messages published again, confirmed.

A message goes back, with the same body and properties, to the work queue in which it died, or, if it was unrouted,
to the queue of its routing key or type. An operator cannot choose the queue, and a `reply_to` that is not allowed is
left out. Every process's scheduler calls this; the ledger gives each letter to one process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from broker.dead_letters.headers import LETTER_ID, LetterProperties
from broker.ledger.dead_letters.replay_steps import ToPublish
from broker.ledger.dead_letters.replays import Replays
from broker.rabbitmq import Outgoing, Published
from broker.rabbitmq.topology import ROUTING_KEYS, UNROUTED, dead_queue_of
from broker.sealing import SealBroken, Sealer
from broker.telemetry.log import get_logger

log = get_logger("replaying")

MAX_REPLAYS = 20
"""How many replays one call advances."""

Publish = Callable[[Outgoing], Awaitable[Published]]


class Replayer:
    """Advances all active replays.

    `may_reply_to`: whether an answer may be sent to this queue. `supplier_of`: a jobcenter's supplier by the
    directory. `canary_wait`: seconds after which a canary without a result stops its replay.
    """

    def __init__(
        self,
        replays: Replays,
        sealer: Sealer,
        publish: Publish,
        *,
        may_reply_to: Callable[[str | None], bool],
        supplier_of: Callable[[str], str | None],
        canary_wait: float,
    ) -> None:
        self._replays = replays
        self._sealer = sealer
        self._publish = publish
        self._may_reply_to = may_reply_to
        self._supplier_of = supplier_of
        self._canary_wait = canary_wait

    async def advance(self) -> int:
        """One step of each active replay; returns how many letters were replayed.

        Raises LedgerAway, RabbitAway; the next call continues.
        """
        freed, seen = 0, set[UUID]()
        for _ in range(MAX_REPLAYS):
            step = await self._replays.step(
                self._supplier_of, canary_wait=self._canary_wait, excluding=frozenset(seen)
            )
            if step is None:
                break
            seen.add(step.replay_id)
            freed += step.freed
            for message in step.messages:
                await self._publish_again(message)
        return freed

    async def _publish_again(self, message: ToPublish) -> None:
        try:
            out = self._outgoing(message)
        except (SealBroken, ValueError, TypeError) as error:
            reason = f"it does not open: {error}" if isinstance(error, SealBroken) else str(error)
            await self._replays.record_published(message, reason[:300])
            return
        result = await self._publish(out)
        confirmed = result is Published.CONFIRMED
        problem = None if confirmed else f"its queue did not take it ({result.value})"
        await self._replays.record_published(message, problem)
        log.info("letter-replayed", letter_id=message.letter_id, outcome=result.value)

    def _outgoing(self, message: ToPublish) -> Outgoing:
        """Raises SealBroken, or ValueError with a sentence for the operator."""
        if message.body is None or message.properties is None:
            raise ValueError("its body or its properties were not kept")
        of = str(message.letter_id)
        body = self._sealer.open(message.body, of=of, field="body")
        kept = LetterProperties.from_json(self._sealer.open(message.properties, of=of, field="properties"))
        return Outgoing(
            exchange="",
            routing_key=work_queue_of(message.queue, kept),
            body=body,
            type=kept.type,
            content_type=kept.content_type,
            correlation_id=kept.correlation_id,
            reply_to=kept.reply_to if self._may_reply_to(kept.reply_to) else None,
            headers={**kept.headers, LETTER_ID: of},
        )


def work_queue_of(dead_queue: str, kept: LetterProperties) -> str:
    """The work queue to which a replayed message is published. Raises ValueError if there is none."""
    if dead_queue != dead_queue_of(UNROUTED):
        return dead_queue.removesuffix(".dead")
    queues = {key: queue for queue, keys in ROUTING_KEYS.items() for key in keys}
    for key in (kept.routing_key, (kept.type or "").rpartition(".")[0]):
        if key in queues:
            return queues[key]
    raise ValueError("no queue takes its routing key or its type")
