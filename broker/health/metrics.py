"""The metrics of a worker as one table: name, kind, labels, how the value is read, help text.

A scrape reads the counters and the vitals of the process; it does no I/O. Label values come from closed lists or from
the directory. No personal data.
"""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from broker import __version__
from broker.health.readings import (
    Read,
    attention,
    consumers_alive,
    consumers_expected,
    counts,
    from_figures,
    key_expiry,
    lane_ages,
    lane_states,
    letters,
    oldest_ages,
    single,
    uncertain,
    waiting,
)
from broker.health.vitals import Vitals
from broker.telemetry.prometheus import Writer

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class MetricRow(NamedTuple):
    """One metric. `labels` is a list of words with spaces between them; `name` gets the prefix `jobnet_`."""

    name: str
    kind: str
    labels: str
    read: Read
    help: str


# fmt: off
METRICS: tuple[MetricRow, ...] = (
    # Requests and answers.
    MetricRow("requests_total", COUNTER, "type", lambda v: v.counters.arrivals,
        "Requests received from the queues, by AMQP type"),
    MetricRow("answers_total", COUNTER, "type status error_code", lambda v: v.counters.answers,
        "Ended requests; status dead: dead-lettered without an answer"),
    MetricRow("request_duration_seconds", HISTOGRAM, "type", lambda v: v.counters.carrying,
        "Time from the arrival of a request to its acknowledgement"),
    MetricRow("arrivals_in_flight", GAUGE, "", lambda v: single(v.consumer.in_flight if v.consumer else None),
        "Messages being handled now, requests and lane messages"),
    MetricRow("bugs_total", COUNTER, "", lambda v: single(v.consumer.bugs if v.consumer else None),
        "Messages left unacknowledged by a bug of the broker"),

    # Calls to external systems.
    MetricRow("calls_total", COUNTER, "system step verdict", lambda v: v.counters.calls,
        "Tries of calls to external systems, by class of result"),
    MetricRow("call_duration_seconds", HISTOGRAM, "system step", lambda v: v.counters.calling,
        "Duration of one try of a call to an external system"),
    MetricRow("call_retries_total", COUNTER, "system step", lambda v: v.counters.retries,
        "Retries of calls to external systems"),
    MetricRow("calls_turned_away_total", COUNTER, "system why", lambda v: v.counters.turned_away,
        "Calls not sent because of the concurrency limit, an open circuit breaker or a pause"),

    # Reports and lanes.
    MetricRow("reports_created_total", COUNTER, "supplier", lambda v: v.counters.created,
        "Failure reports created; failures merged into an existing report are not counted"),
    MetricRow("attempts_total", COUNTER, "supplier verdict", lambda v: v.counters.attempts,
        "Attempts to deliver a report, by decision: delivered, later, dead, kept"),
    MetricRow("attempt_duration_seconds", HISTOGRAM, "supplier", lambda v: v.counters.delivering,
        "Duration of one attempt to deliver a report"),
    MetricRow("reports_waiting", GAUGE, "supplier", counts(waiting),
        "Reports in the ledger that are not delivered yet"),
    MetricRow("reports_oldest_age_seconds", GAUGE, "supplier", oldest_ages(waiting),
        "Age of the oldest report that is not delivered yet"),
    MetricRow("lane_state", GAUGE, "supplier state", from_figures(lane_states),
        "1 for the current state of a supplier's lane, 0 for the other states"),
    MetricRow("lane_state_age_seconds", GAUGE, "supplier", lane_ages,
        "How long a supplier's lane has been in its current state"),
    MetricRow("lane_attention", GAUGE, "supplier", from_figures(attention),
        "1 while the lane needs an operator: address, key or certificate"),

    # Work for operators.
    MetricRow("dead_letters", GAUGE, "queue cause", counts(letters),
        "Dead letters in the ledger"),
    MetricRow("dead_letters_oldest_age_seconds", GAUGE, "queue cause", oldest_ages(letters),
        "Time since the first failure of the oldest dead letter"),
    MetricRow("bookings_uncertain", GAUGE, "system", counts(uncertain),
        "Bookings that were sent and whose result is not known"),
    MetricRow("bookings_uncertain_oldest_age_seconds", GAUGE, "system", oldest_ages(uncertain),
        "Age of the oldest uncertain booking"),
    MetricRow("conservation_gaps", GAUGE, "", lambda v: single(len(v.balance.gaps) if v.balance else None),
        "Requests and reports without an outcome that the ledger can explain"),
    MetricRow("conservation_age_seconds", GAUGE, "", lambda v: single(monotonic() - v.balance_at if v.balance else None),
        "Time since the last comparison of accepted requests and reports with their outcomes"),
    MetricRow("dead_letter_pass_timestamp_seconds", GAUGE, "", lambda v: single(v.pass_done_at),
        "When this process last finished reconciling the dead-letter queues"),
    MetricRow("dead_letter_queues_refusing", GAUGE, "", lambda v: single(v.pass_refused if v.pass_done_at else None),
        "Dead-letter queues that could not be reconciled: full or missing"),

    # RabbitMQ.
    MetricRow("consumers_expected", GAUGE, "queue", consumers_expected,
        "1 for each queue that this process should consume"),
    MetricRow("consumers_alive", GAUGE, "queue", consumers_alive,
        "1 for each of these queues on which RabbitMQ has a consumer of this process, else 0"),
    MetricRow("queue_messages", GAUGE, "queue", lambda v: {(queue,): depth for queue, depth in v.depths.items()},
        "Messages waiting in a work queue"),
    MetricRow("publishes_total", COUNTER, "exchange said", lambda v: v.counters.publishes,
        "Publishes, by RabbitMQ's response; unknown: no response in time"),
    MetricRow("confirm_duration_seconds", HISTOGRAM, "exchange", lambda v: v.counters.confirming,
        "Time from a publish to RabbitMQ's confirm"),
    MetricRow("rabbitmq_blocked", GAUGE, "", lambda v: single(v.blocked if v.rabbit else None),
        "1 while RabbitMQ accepts no publishes: not connected, or a resource alarm"),

    # The ledger.
    MetricRow("ledger_batch_rows", HISTOGRAM, "what", lambda v: v.counters.batch_rows,
        "Rows in one group commit"),
    MetricRow("ledger_batch_duration_seconds", HISTOGRAM, "what", lambda v: v.counters.batch_seconds,
        "Duration of one group commit"),
    MetricRow("ledger_away", GAUGE, "", lambda v: single(v.ledger.availability.away if v.ledger else None),
        "1 while PostgreSQL cannot be reached or does not do the ledger's work (locked tables, full disk)"),
    MetricRow("ledger_heartbeat_age_seconds", GAUGE, "", lambda v: single(v.ledger.heartbeat.age_s if v.ledger else None),
        "Time since this process's last committed heartbeat"),
    MetricRow("figures_age_seconds", GAUGE, "", lambda v: single(monotonic() - v.figures_at if v.figures else None),
        "Time since the figures (waiting, dead, uncertain) were last read from the ledger"),

    # Processes, certificates, keys.
    MetricRow("ready", GAUGE, "", lambda v: single(not v.why_not_ready()),
        "1 while this process handles requests"),
    MetricRow("workers_alive", GAUGE, "", from_figures(lambda f: single(f.workers_alive)),
        "Processes with a recent heartbeat in the ledger"),
    MetricRow("workers_ready", GAUGE, "", from_figures(lambda f: single(f.workers_ready)),
        "Processes with a recent heartbeat that are ready"),
    MetricRow("event_loop_lag_seconds", HISTOGRAM, "", lambda v: v.counters.lags,
        "Delay of the event loop in waking a task"),
    MetricRow("certificate_expiry_timestamp_seconds", GAUGE, "system which",
        lambda v: {key: ends.timestamp() for key, ends in v.certificates.items()},
        "End of a certificate: the broker's own (client), a trusted one (ca), that of a system (server)"),
    MetricRow("key_expiry_timestamp_seconds", GAUGE, "key", key_expiry,
        "Date by which a sealing or token key should be replaced, from health.key_expiry"),
    MetricRow("build_info", GAUGE, "version", lambda _: {(__version__,): 1},
        "Always 1; the label is the running version"),
)
# fmt: on


class Metrics:
    """The table as text, followed by the process metrics (CPU, memory, open files)."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._writers = [
            Writer(f"jobnet_{row.name}", row.kind, row.help, row.labels.split()) for row in METRICS
        ]
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        pieces = [
            piece
            for row, writer in zip(METRICS, self._writers, strict=True)
            for piece in writer.lines(row.read(self._vitals))
        ]
        return "".join(pieces).encode() + generate_latest(self._process)
