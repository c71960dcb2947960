"""Who has which systems: a jobcenterkode names its Planner, its booking system and its supplier.

Each of those is described once and serves many jobcenters. Reads and checks the file; opens no connection and
reads no certificate. Names that nothing describes are errors that name both sides.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from config.settings import HttpLimits, HttpSettings, Section, Settings
from config.sources import ConfigProblem, read_secret, read_toml, sentences

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,49}$")]
JobcenterCode = Annotated[str, Field(pattern=r"^[0-9]{5}$")]

OVERRIDES = tuple(HttpSettings.model_fields)


class SystemConfig(Section):
    """One external system: where it is, how it knows us, and where its limits differ from `http.*` (None: as there)."""

    base_url: str
    allow_http: bool = False
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    bearer_token_file: Path | None = None
    bearer_token_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")] | None = None
    connect_timeout_seconds: float | None = None
    total_timeout_seconds: float | None = None
    max_response_bytes: int | None = None
    in_flight: int | None = None
    waiting: int | None = None
    retry_first_ms: float | None = None
    retry_max_ms: float | None = None
    breaker_failures: int | None = None
    breaker_open_seconds: float | None = None
    absence_proves_after_seconds: float | None = None

    @property
    def overrides(self) -> dict[str, Any]:
        """The `http.*` settings that this system sets itself."""
        return {name: value for name in OVERRIDES if (value := getattr(self, name)) is not None}

    def limits(self, settings: Settings) -> HttpLimits:
        """The HTTP settings in force for this system."""
        return settings.limits(self.overrides)

    def bearer_token(self) -> str | None:
        """The token from its file or variable, read now (it may have been renewed). Raises ConfigProblem."""
        if self.bearer_token_file:
            return read_secret(self.bearer_token_file, "bearer_token_file")
        if self.bearer_token_env:
            token = os.environ.get(self.bearer_token_env, "")
            if not token:
                raise ConfigProblem([f"bearer_token_env: the variable {self.bearer_token_env} is not set"])
            return token
        return None


class Jobcenter(Section):
    """One jobcenter and the names of what serves it."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    planner: str
    booking_system: str
    supplier: str


class Supplier(Section):
    """A supplier of booking systems; how reports reach it is the next issue's."""

    name: Annotated[str, Field(min_length=1, max_length=100)]


class Directory(Section):
    """Everything that directory.toml says."""

    planners: dict[Name, SystemConfig]
    booking_systems: dict[Name, SystemConfig]
    suppliers: dict[Name, Supplier]
    jobcenters: dict[JobcenterCode, Jobcenter]

    def jobcenter(self, code: str) -> Jobcenter | None:
        """The jobcenter with this jobcenterkode, or None."""
        return self.jobcenters.get(code)


def load_directory(path: Path) -> Directory:
    """Reads and checks one directory file. Raises ConfigProblem with every bad table and key."""
    try:
        return Directory.model_validate(read_toml(path))
    except ValidationError as error:
        raise ConfigProblem(f"{path.name}: {sentence}" for sentence in sentences(error, Directory)) from None


def changed_systems(old: Directory, new: Directory) -> set[str]:
    """Names of the systems and suppliers of `old` that `new` removes or readdresses."""
    gone = {name for name in old.suppliers if name not in new.suppliers}
    for before, after in ((old.planners, new.planners), (old.booking_systems, new.booking_systems)):
        gone |= {n for n, s in before.items() if n not in after or after[n].base_url != s.base_url}
    return gone
