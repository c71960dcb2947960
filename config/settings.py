"""The settings of one broker process as one model of all sections; load.py reads them.

default.toml comes first, a settings file overrides it, and the environment overrides both. Secrets come from the
environment only.
"""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config.console_section import ConsoleSettings
from config.health_sections import HealthSettings, TracingSettings
from config.report_sections import DeadSettings, ReportSettings, RetentionSettings
from config.sections import (
    KEY_BYTES,
    AnswerSettings,
    DirectorySettings,
    HttpLimits,
    HttpSettings,
    KeySettings,
    LedgerSettings,
    LogSettings,
    QueueSettings,
    RabbitmqSettings,
    RequestSettings,
    SchedulerSettings,
    Section,
    StopSettings,
    VerificationSettings,
    WatchdogSettings,
)
from config.sources import PREFIX, ConfigProblem, Tree, merge, read_toml, sentences

DEFAULTS = Path(__file__).resolve().with_name("default.toml")
EXAMPLE = DEFAULTS.with_name("directory.toml")
"""A directory to learn from: all that it names is invented."""
HINTS = {
    "rabbitmq.url": f"set {PREFIX}RABBITMQ__URL, or {PREFIX}RABBITMQ__URL_FILE with the name of a file",
    "ledger.dsn": f"set {PREFIX}LEDGER__DSN, or {PREFIX}LEDGER__DSN_FILE with the name of a file",
    "keys": f"set {PREFIX}KEYS__SEALING and so on, or {PREFIX}KEYS_FILE with the name of a file",
}


class Settings(Section):
    """All settings of one broker process."""

    rabbitmq: RabbitmqSettings
    queues: QueueSettings = QueueSettings()
    ledger: LedgerSettings = LedgerSettings()
    requests: RequestSettings = RequestSettings()
    http: HttpSettings = HttpSettings()
    verification: VerificationSettings = VerificationSettings()
    reports: ReportSettings = ReportSettings()
    dead: DeadSettings = DeadSettings()
    retention: RetentionSettings = RetentionSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    stop: StopSettings = StopSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    health: HealthSettings = HealthSettings()
    tracing: TracingSettings = TracingSettings()
    answers: AnswerSettings = AnswerSettings()
    keys: KeySettings = KeySettings()
    log: LogSettings = LogSettings()
    directory: DirectorySettings = DirectorySettings()
    console: ConsoleSettings = ConsoleSettings()

    def limits(self, overrides: dict[str, Any] | None = None) -> HttpLimits:
        """The HTTP settings with `overrides`; `in_flight` defaults to a tenth of the bookings prefetch."""
        values = self.http.model_dump() | (overrides or {})
        if values["in_flight"] is None:
            values["in_flight"] = max(1, self.queues.bookings_prefetch // 10)
        if values["waiting"] is None:
            values["waiting"] = values["in_flight"]
        return HttpLimits(**values)


def build(changes: Tree) -> Settings:
    """The defaults with `changes`, checked key by key, without the check for dangerous combinations.

    Raises ConfigProblem.
    """
    try:
        return Settings.model_validate(merge(read_toml(DEFAULTS), changes))
    except ValidationError as error:
        raise ConfigProblem(sentences(error, Settings, HINTS)) from None


def generate_keys() -> dict[str, Any]:
    """A new set of keys in the form of the section `keys`, with random ids."""
    sealing, tokens = f"s-{secrets.token_hex(3)}", f"t-{secrets.token_hex(3)}"
    return {
        "sealing": {sealing: _fresh()},
        "seal_with": sealing,
        "tokens": {tokens: _fresh()},
        "token_order": [tokens],
    }


def _fresh() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
