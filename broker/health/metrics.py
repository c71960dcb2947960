"""The metrics of a worker, as one list: name, labels, where the number is read from, meaning.

Nothing is counted here and nothing is asked for: everything is read from what the process knows already, at the moment
when Prometheus asks. Labels are from closed lists or from the directory. Nothing personal.
"""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from broker import __version__
from broker.health.readings import (
    Read,
    ages,
    attention,
    consumers_alive,
    consumers_expected,
    key_expiry,
    lane_ages,
    lane_states,
    letters,
    numbers,
    single,
    standing,
    uncertain,
    waiting,
)
from broker.health.vitals import Vitals
from broker.telemetry.prometheus import Writer

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class MetricRow(NamedTuple):
    """One metric. `labels` are words with spaces between them; `name` gets `jobnet_` before it."""

    name: str
    kind: str
    labels: str
    read: Read
    help: str


# fmt: off
METRICS: tuple[MetricRow, ...] = (
    # Requests and answers.
    MetricRow("requests_total", COUNTER, "type", lambda v: v.tally.arrivals,
        "Requests taken from their queues, by AMQP type"),
    MetricRow("answers_total", COUNTER, "type status error_code", lambda v: v.tally.answers,
        "Requests that ended; status dead: put aside for a person, without an answer"),
    MetricRow("request_duration_seconds", HISTOGRAM, "type", lambda v: v.tally.carrying,
        "From arrival to acknowledgement"),
    MetricRow("arrivals_in_flight", GAUGE, "", lambda v: single(v.consumer.in_flight if v.consumer else None),
        "Arrivals that are being carried now, those on lanes included"),
    MetricRow("bugs_total", COUNTER, "", lambda v: single(v.consumer.bugs if v.consumer else None),
        "Arrivals that a bug of ours left unacknowledged"),

    # Calls to external systems.
    MetricRow("calls_total", COUNTER, "system step verdict", lambda v: v.tally.calls,
        "Tries that left for an external system, by what they came to"),
    MetricRow("call_duration_seconds", HISTOGRAM, "system step", lambda v: v.tally.calling,
        "Duration of such a try"),
    MetricRow("call_retries_total", COUNTER, "system step", lambda v: v.tally.retries,
        "Calls that were tried again"),
    MetricRow("calls_turned_away_total", COUNTER, "system why", lambda v: v.tally.turned_away,
        "Calls that our own cap, breaker or pause did not let out"),

    # Reports and lanes.
    MetricRow("reports_created_total", COUNTER, "supplier", lambda v: v.tally.created,
        "Failure reports that were made; merged ones count on the report that is there"),
    MetricRow("attempts_total", COUNTER, "supplier verdict", lambda v: v.tally.attempts,
        "Attempts to deliver a report, by verdict: delivered, later, dead, kept"),
    MetricRow("attempt_duration_seconds", HISTOGRAM, "supplier", lambda v: v.tally.delivering,
        "Duration of such an attempt"),
    MetricRow("reports_waiting", GAUGE, "supplier", numbers(waiting),
        "Reports in the ledger that are not delivered yet"),
    MetricRow("reports_oldest_age_seconds", GAUGE, "supplier", ages(waiting),
        "Age of the oldest of them"),
    MetricRow("lane_state", GAUGE, "supplier state", standing(lane_states),
        "1 for the state in which a supplier's lane is"),
    MetricRow("lane_state_age_seconds", GAUGE, "supplier", lane_ages,
        "How long the lane has been in it"),
    MetricRow("lane_attention", GAUGE, "supplier", standing(attention),
        "1 while a person has to see to the lane: address, key, certificate"),

    # What a person has to look at.
    MetricRow("dead_letters", GAUGE, "queue cause", numbers(letters),
        "Dead letters in the ledger"),
    MetricRow("dead_letters_oldest_age_seconds", GAUGE, "queue cause", ages(letters),
        "How long ago the oldest of them failed first"),
    MetricRow("bookings_uncertain", GAUGE, "system", numbers(uncertain),
        "Bookings that were sent and of which nobody knows"),
    MetricRow("bookings_uncertain_oldest_age_seconds", GAUGE, "system", ages(uncertain),
        "Age of the oldest of them"),
    MetricRow("conservation_gaps", GAUGE, "", lambda v: single(len(v.balance.gaps) if v.balance else None),
        "Requests and reports that the ledger cannot account for"),
    MetricRow("conservation_age_seconds", GAUGE, "", lambda v: single(monotonic() - v.balance_at if v.balance else None),
        "Since the last comparison"),
    MetricRow("dead_letter_pass_timestamp_seconds", GAUGE, "", lambda v: single(v.pass_done_at),
        "When this process last finished a pass over the dead-letter queues"),
    MetricRow("dead_letter_queues_refusing", GAUGE, "", lambda v: single(v.pass_refused if v.pass_done_at else None),
        "Dead-letter queues that this pass could not make true: full or missing"),

    # RabbitMQ.
    MetricRow("consumers_expected", GAUGE, "queue", consumers_expected,
        "1 for each queue that this process should consume now"),
    MetricRow("consumers_alive", GAUGE, "queue", consumers_alive,
        "1 for each of them on which RabbitMQ has a consumer of ours"),
    MetricRow("queue_messages", GAUGE, "queue", lambda v: {(queue,): depth for queue, depth in v.depths.items()},
        "Messages that wait in a work queue"),
    MetricRow("publishes_total", COUNTER, "exchange said", lambda v: v.tally.publishes,
        "What RabbitMQ said about publishes; unknown: nothing, in time"),
    MetricRow("confirm_duration_seconds", HISTOGRAM, "exchange", lambda v: v.tally.confirming,
        "From a publish to RabbitMQ's word on it"),
    MetricRow("rabbitmq_blocked", GAUGE, "", lambda v: single(v.blocked if v.rabbit else None),
        "1 while RabbitMQ takes no publishes: not connected, or an alarm"),

    # The ledger.
    MetricRow("ledger_batch_rows", HISTOGRAM, "what", lambda v: v.tally.batch_rows,
        "Rows in one group commit"),
    MetricRow("ledger_batch_duration_seconds", HISTOGRAM, "what", lambda v: v.tally.batch_seconds,
        "Duration of one group commit"),
    MetricRow("ledger_away", GAUGE, "", lambda v: single(v.ledger.availability.away if v.ledger else None),
        "1 while PostgreSQL is out of reach"),
    MetricRow("ledger_heartbeat_age_seconds", GAUGE, "", lambda v: single(v.ledger.heartbeat.age_s if v.ledger else None),
        "Since this process's last committed heartbeat"),
    MetricRow("figures_age_seconds", GAUGE, "", lambda v: single(monotonic() - v.figures_at if v.figures else None),
        "Since waiting, dead and uncertain were last read from the ledger"),

    # Processes, certificates, keys.
    MetricRow("ready", GAUGE, "", lambda v: single(not v.why_not_ready()),
        "1 while requests are carried here"),
    MetricRow("workers_alive", GAUGE, "", standing(lambda f: single(f.workers_alive)),
        "Processes whose heartbeat in the ledger is young"),
    MetricRow("workers_ready", GAUGE, "", standing(lambda f: single(f.workers_ready)),
        "Those of them that are ready"),
    MetricRow("event_loop_lag_seconds", HISTOGRAM, "", lambda v: v.tally.lags,
        "How much later than asked for the event loop woke a task"),
    MetricRow("certificate_expiry_timestamp_seconds", GAUGE, "system which",
        lambda v: {key: ends.timestamp() for key, ends in v.certificates.items()},
        "When a certificate ends: our own (client), one that we trust (ca), one that a system shows (server)"),
    MetricRow("key_expiry_timestamp_seconds", GAUGE, "key", key_expiry,
        "When a sealing or token key is to be replaced, by health.key_expiry"),
    MetricRow("build_info", GAUGE, "version", lambda _: {(__version__,): 1},
        "1, with the version that runs"),
)
# fmt: on


class Metrics:
    """The list as text, with the process's own figures (CPU, memory, open files) behind it."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._writers = [
            Writer(f"jobnet_{row.name}", row.kind, row.help, row.labels.split()) for row in METRICS
        ]
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        pieces = [
            piece
            for row, writer in zip(METRICS, self._writers, strict=True)
            for piece in writer.lines(row.read(self._vitals))
        ]
        return "".join(pieces).encode() + generate_latest(self._process)
