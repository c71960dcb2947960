"""Settings that are valid one by one but dangerous together: tables whose rows say why.

Data only; checks.py applies the rows to the settings, and again to the effective limits of each system. Each row stands
for a failure that would appear in production long after the start; therefore the start is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from config.sections import HttpLimits
from config.settings import Settings

CONSUMER_TIMEOUT_SECONDS = 1800
"""RabbitMQ closes a channel with a message that is unacknowledged for longer (RabbitMQ's default)."""

BODIES_AT_ONCE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Danger:
    """Keys whose combination is dangerous if `when` is true, and the reason."""

    keys: tuple[str, ...]
    when: Callable[[Settings, HttpLimits], bool]
    why: str


DANGERS: tuple[Danger, ...] = (
    # Times that must fit into the time that a citizen waits.
    Danger(
        ("http.total_timeout_seconds", "requests.patience_seconds", "requests.answer_margin_seconds"),
        lambda s, h: (
            h.total_timeout_seconds >= s.requests.patience_seconds - s.requests.answer_margin_seconds
        ),
        "a create is sent only if its whole timeout fits before the deadline, so none could be sent",
    ),
    Danger(
        ("ledger.owner_dead_after_seconds", "http.total_timeout_seconds", "requests.patience_seconds"),
        lambda s, h: (
            s.ledger.owner_dead_after_seconds + h.total_timeout_seconds + s.requests.answer_margin_seconds
            >= s.requests.patience_seconds
        ),
        "after a crash no process could take a booking over and look it up before its deadline:"
        " all would be uncertain",
    ),
    Danger(
        ("requests.patience_seconds", "requests.clock_skew_seconds"),
        lambda s, h: s.requests.patience_seconds + s.requests.clock_skew_seconds >= CONSUMER_TIMEOUT_SECONDS,
        f"a message could stay unacknowledged for {CONSUMER_TIMEOUT_SECONDS} s, and RabbitMQ would close its channel",
    ),
    Danger(
        ("requests.poll_ms", "requests.answer_margin_seconds"),
        lambda s, h: s.requests.poll_ms > s.requests.answer_margin_seconds * 1000,
        "a request that waits for another one could check again only after its own deadline",
    ),
    Danger(
        ("ledger.batch_linger_ms", "requests.answer_margin_seconds"),
        lambda s, h: s.ledger.batch_linger_ms * 2 > s.requests.answer_margin_seconds * 1000,
        "settling would use up the time that is reserved for the answer",
    ),
    Danger(
        ("rabbitmq.publish_timeout_seconds", "requests.patience_seconds"),
        lambda s, h: s.rabbitmq.publish_timeout_seconds >= s.requests.patience_seconds,
        "an answer that RabbitMQ does not confirm would be published again only after its deadline",
    ),
    Danger(
        ("rabbitmq.reconnect_max_seconds", "requests.patience_seconds"),
        lambda s, h: s.rabbitmq.reconnect_max_seconds >= s.requests.patience_seconds,
        "after a long outage of RabbitMQ all requests in the queues would expire before the broker reconnects",
    ),
    # A failing system must not block the others.
    Danger(
        ("http.in_flight", "http.waiting", "queues.bookings_prefetch", "queues.queries_prefetch"),
        lambda s, h: (
            (h.in_flight + h.waiting) * 2 >= min(s.queues.bookings_prefetch, s.queues.queries_prefetch)
        ),
        "one system that hangs could take half of a queue's prefetch, and two of them all of it",
    ),
    Danger(
        ("verification.batch", "http.in_flight", "http.waiting"),
        lambda s, h: s.verification.batch > h.in_flight + h.waiting,
        "verifications alone could use all concurrent calls of a system, and requests would be refused",
    ),
    Danger(
        ("http.connect_timeout_seconds", "http.total_timeout_seconds"),
        lambda s, h: h.connect_timeout_seconds >= h.total_timeout_seconds,
        "an unreachable system would look like a call with an unknown result",
    ),
    Danger(
        ("http.retry_first_ms", "http.retry_max_ms"),
        lambda s, h: h.retry_first_ms > h.retry_max_ms,
        "the first pause would be longer than the maximum",
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
    # When "not found" proves "not booked".
    Danger(
        ("http.absence_proves_after_seconds", "requests.patience_seconds", "http.total_timeout_seconds"),
        lambda s, h: h.absence_proves_after_seconds <= s.requests.patience_seconds + h.total_timeout_seconds,
        "a citizen could be told that nothing is booked while the call that books it is still running",
    ),
    Danger(
        ("verification.steady_for_seconds", "http.absence_proves_after_seconds"),
        lambda s, h: s.verification.steady_for_seconds < h.absence_proves_after_seconds,
        "the pauses would grow before absence can prove anything: the citizen would be told late",
    ),
    Danger(
        ("verification.give_up_after_seconds", "http.absence_proves_after_seconds"),
        lambda s, h: s.verification.give_up_after_seconds <= h.absence_proves_after_seconds,
        "verification would give up before absence can prove anything: every uncertain booking would end unverified",
    ),
    Danger(
        ("verification.every_seconds", "verification.steady_for_seconds"),
        lambda s, h: s.verification.every_seconds > s.verification.steady_for_seconds,
        "the steady time would end before the second look-up",
    ),
    Danger(
        ("verification.every_seconds", "verification.longest_pause_seconds"),
        lambda s, h: s.verification.every_seconds > s.verification.longest_pause_seconds,
        "the first pause would be longer than the maximum",
    ),
    Danger(
        ("verification.steady_for_seconds", "verification.give_up_after_seconds"),
        lambda s, h: s.verification.steady_for_seconds >= s.verification.give_up_after_seconds,
        "verification would give up while its pauses are still the shortest",
    ),
    Danger(
        ("verification.longest_pause_seconds", "verification.give_up_after_seconds"),
        lambda s, h: s.verification.longest_pause_seconds >= s.verification.give_up_after_seconds,
        "one pause could last past the time at which verification gives up",
    ),
    Danger(
        ("scheduler.tick_seconds", "verification.every_seconds"),
        lambda s, h: s.scheduler.tick_seconds > s.verification.every_seconds,
        "the scheduler would look less often than verification requires",
    ),
    # Which processes are alive.
    Danger(
        ("ledger.heartbeat_seconds", "ledger.owner_dead_after_seconds"),
        lambda s, h: s.ledger.heartbeat_seconds * 3 > s.ledger.owner_dead_after_seconds,
        "two late heartbeats would make a living process look dead, and its bookings would be taken over",
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
        "the work of a dead process would be taken over much later than its death is known",
    ),
    Danger(
        ("watchdog.loop_lag_seconds", "ledger.owner_dead_after_seconds"),
        lambda s, h: s.watchdog.loop_lag_seconds >= s.ledger.owner_dead_after_seconds,
        "other processes would treat a blocked process as dead before it detects the block itself",
    ),
    Danger(
        ("watchdog.check_seconds", "watchdog.recover_within_seconds"),
        lambda s, h: s.watchdog.check_seconds >= s.watchdog.recover_within_seconds,
        "a lost consumer would end the process at the second check, with no time to recover",
    ),
    Danger(
        ("watchdog.recover_within_seconds", "rabbitmq.reconnect_max_seconds"),
        lambda s, h: s.watchdog.recover_within_seconds <= s.rabbitmq.reconnect_max_seconds * 2,
        "the process would exit while it still pauses between two tries to reconnect",
    ),
    Danger(
        ("rabbitmq.reconnect_min_seconds", "rabbitmq.reconnect_max_seconds"),
        lambda s, h: s.rabbitmq.reconnect_min_seconds > s.rabbitmq.reconnect_max_seconds,
        "the first pause would be longer than the maximum",
    ),
    # Stopping, and limits of memory and queues.
    Danger(
        ("stop.drain_seconds", "http.total_timeout_seconds"),
        lambda s, h: s.stop.drain_seconds <= h.total_timeout_seconds,
        "stopping would cut off running calls: each create would become uncertain",
    ),
    Danger(
        ("stop.drain_seconds", "rabbitmq.publish_timeout_seconds"),
        lambda s, h: s.stop.drain_seconds <= s.rabbitmq.publish_timeout_seconds,
        "stopping would not wait for RabbitMQ's confirms of the last answers",
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
        "the messages of a full work queue would not fit into its dead-letter queue, which must not drop any",
    ),
)

REPORT_DANGERS: tuple[Danger, ...] = (
    Danger(
        ("http.connect_timeout_seconds", "reports.total_timeout_seconds"),
        lambda s, h: h.connect_timeout_seconds >= s.reports.total_timeout_seconds,
        "an unreachable supplier would look like a delivery with an unknown result",
    ),
    Danger(
        ("reports.in_flight", "reports.window"),
        lambda s, h: s.reports.in_flight > s.reports.window,
        "more concurrent calls are allowed than reports are handed over",
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
        "a report would count as lost while it still waits behind slow calls",
    ),
    Danger(
        ("reports.handed_over_too_long_seconds", "reports.window", "reports.rate_per_second"),
        lambda s, h: s.reports.handed_over_too_long_seconds <= s.reports.window / s.reports.rate_per_second,
        "a report would count as lost while the rate limit still delays it",
    ),
    Danger(
        ("reports.handed_over_too_long_seconds", "ledger.owner_dead_after_seconds"),
        lambda s, h: s.reports.handed_over_too_long_seconds <= s.ledger.owner_dead_after_seconds,
        "the reports of a dead process would be handed over again before its death is known",
    ),
    Danger(
        ("reports.probe_within_seconds", "reports.total_timeout_seconds"),
        lambda s, h: s.reports.probe_within_seconds <= s.reports.total_timeout_seconds,
        "a probe would count as lost while its call is still running",
    ),
    Danger(
        ("reports.park_first_seconds", "reports.park_most_seconds"),
        lambda s, h: s.reports.park_first_seconds > s.reports.park_most_seconds,
        "the first park time would be longer than the maximum",
    ),
    Danger(
        ("reports.join_within_seconds", "requests.patience_seconds"),
        lambda s, h: s.reports.join_within_seconds <= s.requests.patience_seconds,
        "a citizen's report would stop waiting for its request before the request can have ended",
    ),
    Danger(
        ("stop.drain_seconds", "reports.total_timeout_seconds"),
        lambda s, h: s.stop.drain_seconds <= s.reports.total_timeout_seconds,
        "stopping would cut off running deliveries: suppliers would receive those reports twice",
    ),
    Danger(
        ("dead.canary_wait_seconds", "reports.handed_over_too_long_seconds"),
        lambda s, h: s.dead.canary_wait_seconds <= s.reports.handed_over_too_long_seconds,
        "a replay would stop before a canary whose hand-over was lost could be handed over again",
    ),
    Danger(
        ("retention.letters_days", "retention.reports_days"),
        lambda s, h: s.retention.letters_days > s.retention.reports_days,
        "the undo of a discard could come when its report has been deleted",
    ),
)

ALL_DANGERS = DANGERS + REPORT_DANGERS
