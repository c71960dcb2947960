"""Carries replays on: one step of each that is going, and the messages of it published again, confirmed.

A message goes back with the same body and properties to the queue that it died in (or, if no route took it, to the
queue of its routing key or type), never to one that somebody names; a `reply_to` that is not allowed is left out.
Called by every process's scheduler; the ledger sees to it that each letter is taken by one.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

from broker.dead_letters.headers import LETTER_ID, LetterProperties
from broker.ledger.dead_letters.replay_steps import ToPublish
from broker.ledger.dead_letters.replays import Replays
from broker.rabbitmq import Outgoing, Published
from broker.rabbitmq.topology import ROUTING_KEYS, UNROUTED, dead_queue_of
from broker.sealing import SealBroken, Sealer
from broker.telemetry.log import get_logger

log = get_logger("replaying")

MOST_AT_ONCE = 20
"""Replays that one call carries on."""

Publish = Callable[[Outgoing], Awaitable[Published]]


class Replayer:
    """`advance` is one step of every replay that is going. `supplier_of` a jobcenter code: the directory's word."""

    def __init__(
        self,
        replays: Replays,
        sealer: Sealer,
        publish: Publish,
        *,
        allowed_reply_to: Iterable[str],
        supplier_of: Callable[[str], str | None],
        canary_wait: float,
    ) -> None:
        self._replays = replays
        self._sealer = sealer
        self._publish = publish
        self._allowed = re.compile("|".join(fnmatch.translate(pattern) for pattern in allowed_reply_to))
        self._supplier_of = supplier_of
        self._canary_wait = canary_wait

    async def advance(self) -> int:
        """Letters set free by this call. Raises LedgerAway, RabbitAway; what is left then goes on later."""
        freed, seen = 0, set[UUID]()
        for _ in range(MOST_AT_ONCE):
            step = await self._replays.step(
                self._supplier_of, canary_wait=self._canary_wait, but_not=frozenset(seen)
            )
            if step is None:
                break
            seen.add(step.replay_id)
            freed += step.freed
            for message in step.messages:
                await self._again(message)
        return freed

    async def _again(self, message: ToPublish) -> None:
        try:
            out = self._outgoing(message)
        except (SealBroken, ValueError, TypeError) as error:
            sentence = f"it does not open: {error}" if isinstance(error, SealBroken) else str(error)
            await self._replays.published(message, sentence[:300])
            return
        published = await self._publish(out)
        problem = (
            None if published is Published.CONFIRMED else f"its queue did not take it ({published.value})"
        )
        await self._replays.published(message, problem)
        log.info("replayed", letter_id=message.letter_id, outcome=published.value)

    def _outgoing(self, message: ToPublish) -> Outgoing:
        """Raises SealBroken, or ValueError with a sentence for what cannot be published again."""
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
            reply_to=kept.reply_to if self._allowed.fullmatch(kept.reply_to or "") else None,
            headers={**kept.headers, LETTER_ID: of},
        )


def work_queue_of(dead_queue: str, kept: LetterProperties) -> str:
    """Where a message is carried out. Raises ValueError for one that no queue takes."""
    if dead_queue != dead_queue_of(UNROUTED):
        return dead_queue.removesuffix(".dead")
    queues = {key: queue for queue, keys in ROUTING_KEYS.items() for key in keys}
    for key in (kept.routing_key, (kept.type or "").rpartition(".")[0]):
        if key in queues:
            return queues[key]
    raise ValueError("no queue takes its routing key or its type")
