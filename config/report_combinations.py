"""Settings of failure reports, dead letters and retention that are each fine but dangerous together.

Data only, as `combinations.py`. `dangers.py` asks once for the settings, and again for each supplier with what
it sets for itself.
"""

from __future__ import annotations

from config.combinations import Danger

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
