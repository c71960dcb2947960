"""A supplier of booking systems in the directory: the external system that receives failure reports.

Data only, for example the meaning of an HTTP status; broker/lanes decides what follows from it.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from config.report_sections import Rate, ReportSettings, Window
from config.sections import HttpLimits
from config.settings import Settings
from config.sources import ConfigProblem, read_secret
from config.systems import SystemConfig, Title, Variable, address

MOST_SECRETS = 2
"""One secret, or two during a rotation: the old and the new one, and both sign."""

LEAST_SECRET_BYTES, MOST_SECRET_BYTES = 24, 64
"""Length of a webhook secret (Standard Webhooks 1.0)."""

Meaning = Literal["delivered", "retry", "dead", "park"]
StatusText = Annotated[str, Field(pattern=r"^[245][0-9]{2}$")]

NEVER_DELIVERED = frozenset({401, 403, 404, 405, 407, 408, 429, *range(500, 600)})
"""Statuses about an address, a permission or an outage: they never mean that the report was received."""

NOT_FOR_LANES = (
    "waiting",
    "retry_first_ms",
    "retry_max_ms",
    "breaker_failures",
    "breaker_open_seconds",
    "absence_proves_after_seconds",
    "quiet_ms",
)
"""Settings without effect on a supplier: its lane has its own pauses and its own breaker, in [reports]."""


class Supplier(SystemConfig):
    """A supplier of booking systems: address, format of the reports, and limits."""

    name: Title
    # Without an address the reports wait in the ledger, and a notice says so.
    base_url: Annotated[str, Field(max_length=500)] = ""
    format: Literal["contract", "webhook"] = "contract"
    webhook_secret_files: Annotated[tuple[Path, ...], Field(max_length=MOST_SECRETS)] = ()
    webhook_secret_envs: Annotated[tuple[Variable, ...], Field(max_length=MOST_SECRETS)] = ()
    window: Window | None = None
    in_flight: Window | None = None
    rate_per_second: Rate | None = None
    report_codes: Annotated[tuple[Literal[2, 3, 4], ...], Field(max_length=3)] = (4,)
    status_means: Annotated[dict[StatusText, Meaning], Field(max_length=50)] = Field(default_factory=dict)
    # CPR number of an invented citizen whom the supplier knows; required for test reports.
    test_cpr: SecretStr | None = None

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return address(url) if url else url

    @field_validator("test_cpr")
    @classmethod
    def _has_ten_digits(cls, number: SecretStr | None) -> SecretStr | None:
        if number and not re.fullmatch(r"[0-9]{10}", number.get_secret_value()):
            raise ValueError("must be the ten digits of an invented citizen")
        return number

    @field_validator("report_codes")
    @classmethod
    def _each_once(cls, codes: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(codes)) < len(codes):
            raise ValueError("must not name a code twice")
        return codes

    @field_validator("status_means")
    @classmethod
    def _may_mean_that(cls, meanings: dict[str, Meaning]) -> dict[str, Meaning]:
        if "204" in meanings:
            raise ValueError("must not hold 204: it is delivered, in both formats")
        if wrong := [s for s, m in meanings.items() if m == "delivered" and int(s) in NEVER_DELIVERED]:
            raise ValueError(
                f"must not call {', '.join(wrong)} delivered: the supplier did not take the report"
            )
        return meanings

    @model_validator(mode="after")
    def _signs_if_it_is_a_webhook(self) -> Self:
        secrets = len(self.webhook_secret_files) + len(self.webhook_secret_envs)
        if self.format == "contract" and secrets:
            raise ValueError("webhook_secret_files and webhook_secret_envs do nothing with format contract")
        if self.format == "webhook" and not 1 <= secrets <= MOST_SECRETS:
            raise ValueError(
                "webhook_secret_files and webhook_secret_envs must name one secret together, or two while the"
                " supplier changes from one to the other"
            )
        if idle := [name for name in NOT_FOR_LANES if getattr(self, name) is not None]:
            raise ValueError(f"{', '.join(idle)}: does nothing for a supplier; its lane follows [reports]")
        return self

    @property
    def has_address(self) -> bool:
        """Whether it has an address. Without one its reports wait in the ledger."""
        return bool(self.base_url)

    def lane(self, reports: ReportSettings) -> ReportSettings:
        """The effective section `reports` for this supplier."""
        return reports.model_copy(
            update={
                name: value
                for name in ReportSettings.model_fields
                if (value := getattr(self, name, None)) is not None
            }
        )

    def limits(self, settings: Settings) -> HttpLimits:
        """The effective HTTP settings for its calls; `in_flight` and the timeout are those of the lane."""
        lane = self.lane(settings.reports)
        of_lane = {"in_flight": lane.in_flight, "total_timeout_seconds": lane.total_timeout_seconds}
        return settings.limits(self.overrides | of_lane)

    def webhook_secrets(self) -> tuple[str, ...]:
        """All secrets (`whsec_` and base64), read from their files and variables now: files first, in order. All sign.

        Raises ConfigProblem with the index of the file or the name of the variable, never with the secret.
        """
        files = [(f"webhook_secret_files.{n}", path) for n, path in enumerate(self.webhook_secret_files)]
        readers: list[Callable[[], str]] = [partial(_of_file, where, path) for where, path in files]
        readers += [partial(_of_variable, name) for name in self.webhook_secret_envs]
        secrets, problems = [], []
        for read in readers:
            try:
                secrets.append(read())
            except ConfigProblem as problem:
                problems += problem.problems
        if problems:
            raise ConfigProblem(problems)
        return tuple(secrets)


def _of_file(where: str, path: Path) -> str:
    return _checked(read_secret(path, "webhook_secret_files"), where)


def _of_variable(name: str) -> str:
    text = os.environ.get(name, "")
    if not text:
        raise ConfigProblem([f"webhook_secret_envs: the variable {name} is not set"])
    return _checked(text, f"webhook_secret_envs.{name}")


_SECRET = re.compile(r"whsec_([A-Za-z0-9+/]+={0,2})")


def _checked(text: str, where: str) -> str:
    match = _SECRET.fullmatch(text.strip())
    try:
        size = len(base64.b64decode(match[1], validate=True)) if match else 0
    except binascii.Error:
        size = 0
    if match and LEAST_SECRET_BYTES <= size <= MOST_SECRET_BYTES:
        return match[0]
    raise ConfigProblem(
        [
            f"{where}: must be whsec_ and then {LEAST_SECRET_BYTES} to {MOST_SECRET_BYTES} random bytes"
            " in base64 (Standard Webhooks)"
        ]
    )
