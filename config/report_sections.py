"""The sections about failure reports, dead letters and retention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from config.sections import Count, Seconds, Section

Rate = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
Window = Annotated[int, Field(ge=1, le=10_000)]
Few = Annotated[int, Field(ge=1, le=100)]
HALF_A_DAY = 43_200


class ReportSettings(Section):
    """How failure reports reach their suppliers; a supplier in the directory may override some of these."""

    retry_delays_seconds: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=50)] = (
        *(10, 60, 300, 1800, 7200, 21_600),
        *(HALF_A_DAY,) * 5,
    )
    retry_after_most_seconds: Seconds = 86_400
    merge_within_seconds: Seconds = 600
    join_within_seconds: Seconds = 300
    park_after_failures: Count = 5
    park_first_seconds: Seconds = 60
    park_most_seconds: Seconds = 1800
    probe_within_seconds: Seconds = 120
    window: Window = 20
    in_flight: Window = 10
    rate_per_second: Rate = 20
    total_timeout_seconds: Seconds = 15
    handed_over_too_long_seconds: Seconds = 60
    crashes_most: Few = 3
    bug_tries: Few = 3


class DeadSettings(Section):
    """Reconciliation of the dead-letter queues with the ledger, and replays of dead letters."""

    pass_every_seconds: Seconds = 5
    pass_batch: Window = 500
    replay_rate_per_second: Rate = 10
    canary_wait_seconds: Seconds = 300


Days = Annotated[int, Field(ge=1, le=3650)]


class RetentionSettings(Section):
    """How many days ended rows are kept, table by table. Open rows are never deleted."""

    requests_days: Days = 30
    reports_days: Days = 90
    attempts_days: Days = 90
    letters_days: Days = 90
    replays_days: Days = 90
    operator_log_days: Days = 1825
    lane_changes_days: Days = 90
    flow_days: Days = 14
    purge_every_seconds: Seconds = 86_400
    purge_batch: Window = 1000
