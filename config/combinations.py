"""Settings that are each fine but dangerous together: a table, each row with the sentence that says why.

Data only; `dangers.py` goes through it for the settings and for each system's own limits. A row stands for
something that goes wrong in production long after the start, which is why the start is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from config.sections import HttpLimits
from config.settings import Settings

CONSUMER_TIMEOUT_SECONDS = 1800
"""RabbitMQ closes a channel that keeps an arrival unacknowledged for longer (its own default)."""

BODIES_AT_ONCE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Danger:
    """Keys that do not go together when `when` holds, and why."""

    keys: tuple[str, ...]
    when: Callable[[Settings, HttpLimits], bool]
    why: str


DANGERS: tuple[Danger, ...] = (
    # What a citizen's patience must have room for.
    Danger(
        ("http.total_timeout_seconds", "requests.patience_seconds", "requests.answer_margin_seconds"),
        lambda s, h: (
            h.total_timeout_seconds >= s.requests.patience_seconds - s.requests.answer_margin_seconds
        ),
        "a create leaves only if its whole timeout fits before the deadline, so none could ever be sent",
    ),
    Danger(
        ("ledger.owner_dead_after_seconds", "http.total_timeout_seconds", "requests.patience_seconds"),
        lambda s, h: (
            s.ledger.owner_dead_after_seconds + h.total_timeout_seconds + s.requests.answer_margin_seconds
            >= s.requests.patience_seconds
        ),
        "after a crash nobody could take a booking over and look it up before its deadline:"
        " all would be uncertain",
    ),
    Danger(
        ("requests.patience_seconds", "requests.clock_skew_seconds"),
        lambda s, h: s.requests.patience_seconds + s.requests.clock_skew_seconds >= CONSUMER_TIMEOUT_SECONDS,
        f"an arrival could be held for {CONSUMER_TIMEOUT_SECONDS} s, and RabbitMQ would close its channel",
    ),
    Danger(
        ("requests.poll_ms", "requests.answer_margin_seconds"),
        lambda s, h: s.requests.poll_ms > s.requests.answer_margin_seconds * 1000,
        "one that waits for another's answer could look again only after its own deadline",
    ),
    Danger(
        ("ledger.batch_linger_ms", "requests.answer_margin_seconds"),
        lambda s, h: s.ledger.batch_linger_ms * 2 > s.requests.answer_margin_seconds * 1000,
        "settling would use up the time that is kept free for the answer",
    ),
    Danger(
        ("rabbitmq.publish_timeout_seconds", "requests.patience_seconds"),
        lambda s, h: s.rabbitmq.publish_timeout_seconds >= s.requests.patience_seconds,
        "an answer that RabbitMQ does not confirm would be tried again only when its asker has left",
    ),
    Danger(
        ("rabbitmq.reconnect_max_seconds", "requests.patience_seconds"),
        lambda s, h: s.rabbitmq.reconnect_max_seconds >= s.requests.patience_seconds,
        "after a long outage of RabbitMQ whole queues would expire while the broker pauses",
    ),
    # One bad system does not hold the others.
    Danger(
        ("http.in_flight", "http.waiting", "queues.bookings_prefetch", "queues.queries_prefetch"),
        lambda s, h: (
            (h.in_flight + h.waiting) * 2 >= min(s.queues.bookings_prefetch, s.queues.queries_prefetch)
        ),
        "one hung system could hold half of a queue's places, and two of them the whole queue",
    ),
    Danger(
        ("verification.batch", "http.in_flight", "http.waiting"),
        lambda s, h: s.verification.batch > h.in_flight + h.waiting,
        "verifications alone could fill a system's places, and citizens would be turned away",
    ),
    Danger(
        ("http.connect_timeout_seconds", "http.total_timeout_seconds"),
        lambda s, h: h.connect_timeout_seconds >= h.total_timeout_seconds,
        "a system that cannot even be reached would look like a call with an unknown fate",
    ),
    Danger(
        ("http.retry_first_ms", "http.retry_max_ms"),
        lambda s, h: h.retry_first_ms > h.retry_max_ms,
        "the first pause would be longer than the longest",
    ),
    Danger(
        ("http.retry_max_ms", "requests.patience_seconds"),
        lambda s, h: h.retry_max_ms >= s.requests.patience_seconds * 1000,
        "a pause between two tries could outlast the deadline",
    ),
    Danger(
        ("http.breaker_open_seconds", "verification.give_up_after_seconds"),
        lambda s, h: h.breaker_open_seconds >= s.verification.give_up_after_seconds,
        "one open breaker could keep an uncertain booking from ever being looked up",
    ),
    # When absence proves something.
    Danger(
        ("http.absence_proves_after_seconds", "requests.patience_seconds", "http.total_timeout_seconds"),
        lambda s, h: h.absence_proves_after_seconds <= s.requests.patience_seconds + h.total_timeout_seconds,
        "a citizen could be told that nothing is booked while the call that books it is still on its way",
    ),
    Danger(
        ("verification.steady_for_seconds", "http.absence_proves_after_seconds"),
        lambda s, h: s.verification.steady_for_seconds < h.absence_proves_after_seconds,
        "the pauses would grow before absence can prove anything: the citizen would learn it late",
    ),
    Danger(
        ("verification.give_up_after_seconds", "http.absence_proves_after_seconds"),
        lambda s, h: s.verification.give_up_after_seconds <= h.absence_proves_after_seconds,
        "it would give up before absence can prove anything: every uncertain booking would end unverified",
    ),
    Danger(
        ("verification.every_seconds", "verification.steady_for_seconds"),
        lambda s, h: s.verification.every_seconds > s.verification.steady_for_seconds,
        "the steady time would be over before the second look",
    ),
    Danger(
        ("verification.every_seconds", "verification.longest_pause_seconds"),
        lambda s, h: s.verification.every_seconds > s.verification.longest_pause_seconds,
        "the first pause would be longer than the longest",
    ),
    Danger(
        ("verification.steady_for_seconds", "verification.give_up_after_seconds"),
        lambda s, h: s.verification.steady_for_seconds >= s.verification.give_up_after_seconds,
        "it would give up while it still looks at the steady pace",
    ),
    Danger(
        ("verification.longest_pause_seconds", "verification.give_up_after_seconds"),
        lambda s, h: s.verification.longest_pause_seconds >= s.verification.give_up_after_seconds,
        "one pause could reach past the moment of giving up",
    ),
    Danger(
        ("scheduler.tick_seconds", "verification.every_seconds"),
        lambda s, h: s.scheduler.tick_seconds > s.verification.every_seconds,
        "the scheduler would look more rarely than verification promises",
    ),
    # Who is alive.
    Danger(
        ("ledger.heartbeat_seconds", "ledger.owner_dead_after_seconds"),
        lambda s, h: s.ledger.heartbeat_seconds * 3 > s.ledger.owner_dead_after_seconds,
        "two late heartbeats would make a living process look dead, and its bookings be taken over",
    ),
    Danger(
        ("ledger.statement_timeout_seconds", "ledger.heartbeat_seconds", "ledger.owner_dead_after_seconds"),
        lambda s, h: (
            s.ledger.statement_timeout_seconds + s.ledger.heartbeat_seconds
            >= s.ledger.owner_dead_after_seconds
        ),
        "one stuck statement would make a living process look dead",
    ),
    Danger(
        ("ledger.batch_linger_ms", "ledger.heartbeat_seconds"),
        lambda s, h: s.ledger.batch_linger_ms >= s.ledger.heartbeat_seconds * 1000,
        "a claim could wait for its commit longer than a heartbeat lasts",
    ),
    Danger(
        ("scheduler.tick_seconds", "ledger.owner_dead_after_seconds"),
        lambda s, h: s.scheduler.tick_seconds >= s.ledger.owner_dead_after_seconds,
        "what a dead process left would be swept much later than its death is known",
    ),
    Danger(
        ("watchdog.loop_lag_seconds", "ledger.owner_dead_after_seconds"),
        lambda s, h: s.watchdog.loop_lag_seconds >= s.ledger.owner_dead_after_seconds,
        "others would judge a stuck process dead before it notices itself",
    ),
    Danger(
        ("watchdog.check_seconds", "watchdog.recover_within_seconds"),
        lambda s, h: s.watchdog.check_seconds >= s.watchdog.recover_within_seconds,
        "a lost consumer would end the process at the second look, with no time to come back",
    ),
    Danger(
        ("watchdog.recover_within_seconds", "rabbitmq.reconnect_max_seconds"),
        lambda s, h: s.watchdog.recover_within_seconds <= s.rabbitmq.reconnect_max_seconds * 2,
        "the process would exit while it still pauses between two tries to reconnect",
    ),
    Danger(
        ("rabbitmq.reconnect_min_seconds", "rabbitmq.reconnect_max_seconds"),
        lambda s, h: s.rabbitmq.reconnect_min_seconds > s.rabbitmq.reconnect_max_seconds,
        "the first pause would be longer than the longest",
    ),
    # Stopping without loss of time, and bounds of memory and queues.
    Danger(
        ("stop.drain_seconds", "http.total_timeout_seconds"),
        lambda s, h: s.stop.drain_seconds <= h.total_timeout_seconds,
        "stopping would cut off calls that are on their way: each create would become uncertain",
    ),
    Danger(
        ("stop.drain_seconds", "rabbitmq.publish_timeout_seconds"),
        lambda s, h: s.stop.drain_seconds <= s.rabbitmq.publish_timeout_seconds,
        "stopping would not wait for the answers that are being confirmed",
    ),
    Danger(
        ("queues.max_body_bytes", "queues.bookings_prefetch", "queues.queries_prefetch"),
        lambda s, h: (
            s.queues.max_body_bytes * (s.queues.bookings_prefetch + s.queues.queries_prefetch)
            > BODIES_AT_ONCE_BYTES
        ),
        "the largest bodies at once would need more than 512 MiB of memory",
    ),
    Danger(
        ("queues.dead_max_length", "queues.max_length"),
        lambda s, h: s.queues.dead_max_length < s.queues.max_length,
        "a full work queue would not fit into its dead-letter queue, and that one must never drop",
    ),
)

REPORT_DANGERS: tuple[Danger, ...] = (
    Danger(
        ("http.connect_timeout_seconds", "reports.total_timeout_seconds"),
        lambda s, h: h.connect_timeout_seconds >= s.reports.total_timeout_seconds,
        "a supplier that cannot even be reached would look like a delivery with an unknown fate",
    ),
    Danger(
        ("reports.in_flight", "reports.window"),
        lambda s, h: s.reports.in_flight > s.reports.window,
        "more calls at once are allowed than reports are ever handed over",
    ),
    Danger(
        (
            "reports.handed_over_too_long_seconds",
            "reports.window",
            "reports.in_flight",
            "reports.total_timeout_seconds",
        ),
        lambda s, h: (
            s.reports.handed_over_too_long_seconds
            <= s.reports.window / s.reports.in_flight * s.reports.total_timeout_seconds
        ),
        "a report would be taken for lost while it still waits behind slow calls",
    ),
    Danger(
        ("reports.handed_over_too_long_seconds", "reports.window", "reports.rate_per_second"),
        lambda s, h: s.reports.handed_over_too_long_seconds <= s.reports.window / s.reports.rate_per_second,
        "a report would be taken for lost while the rate still holds it back",
    ),
    Danger(
        ("reports.handed_over_too_long_seconds", "ledger.owner_dead_after_seconds"),
        lambda s, h: s.reports.handed_over_too_long_seconds <= s.ledger.owner_dead_after_seconds,
        "what a dying process was given would be handed over again before its death is known",
    ),
    Danger(
        ("reports.probe_within_seconds", "reports.total_timeout_seconds"),
        lambda s, h: s.reports.probe_within_seconds <= s.reports.total_timeout_seconds,
        "a probe would be taken for lost while its call is still under way",
    ),
    Danger(
        ("reports.park_first_seconds", "reports.park_most_seconds"),
        lambda s, h: s.reports.park_first_seconds > s.reports.park_most_seconds,
        "the first parking would be longer than the longest",
    ),
    Danger(
        ("reports.join_within_seconds", "requests.patience_seconds"),
        lambda s, h: s.reports.join_within_seconds <= s.requests.patience_seconds,
        "a citizen's report would stop waiting for its request before that can have ended",
    ),
    Danger(
        ("stop.drain_seconds", "reports.total_timeout_seconds"),
        lambda s, h: s.stop.drain_seconds <= s.reports.total_timeout_seconds,
        "stopping would cut off deliveries that are on their way: suppliers would get those reports twice",
    ),
    Danger(
        ("dead.canary_wait_seconds", "reports.handed_over_too_long_seconds"),
        lambda s, h: s.dead.canary_wait_seconds <= s.reports.handed_over_too_long_seconds,
        "a replay would stop itself before a canary that was handed over in vain could go again",
    ),
    Danger(
        ("retention.letters_days", "retention.reports_days"),
        lambda s, h: s.retention.letters_days > s.retention.reports_days,
        "a discard could be undone when its report is no longer there",
    ),
)

ALL_DANGERS = DANGERS + REPORT_DANGERS
