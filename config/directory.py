"""The directory: a jobcenterkode names its Planner, its booking system and its supplier (docs/contract.md#directory).

Each of those is described once and may serve many jobcenters. A name without a description is an error. No network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from config.sections import Section
from config.sources import PREFIX, ConfigProblem, read_toml, sentences
from config.suppliers import Supplier
from config.systems import SystemConfig, Title

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,49}$")]
JobcenterCode = Annotated[str, Field(pattern=r"^[0-9]{5}$")]
FILES = ("ca_file", "client_cert", "client_key", "bearer_token_file")
NO_DIRECTORY = (
    "directory.file: is not set, and there is no settings file beside which directory.toml could be; name the file of"
    f" jobcenters with --directory, {PREFIX}DIRECTORY__FILE or in the settings file; config/directory.toml, an"
    " example, is taken only if it is named"
)
TABLES = ("planners", "booking_systems", "suppliers")
S = TypeVar("S", bound=SystemConfig)


class Jobcenter(Section):
    """One jobcenter, and the names of its systems."""

    name: Title
    planner: str
    booking_system: str
    supplier: str


class Directory(Section):
    """The content of directory.toml."""

    planners: dict[Name, SystemConfig]
    booking_systems: dict[Name, SystemConfig]
    suppliers: dict[Name, Supplier]
    jobcenters: Annotated[dict[JobcenterCode, Jobcenter], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _names_only_what_it_describes(self) -> Self:
        unknown = list(_unknown_references(self))
        if unknown:
            raise ValueError("\n".join(unknown))
        return self

    def jobcenter(self, code: str) -> Jobcenter | None:
        """The jobcenter with this jobcenterkode, or None."""
        return self.jobcenters.get(code)

    def systems(self) -> Iterator[tuple[str, SystemConfig]]:
        """Every Planner and booking system with its full name: `planners.nord`, `booking_systems.fjord`."""
        for table in ("planners", "booking_systems"):
            for name, system in getattr(self, table).items():
                yield f"{table}.{name}", system


def _unknown_references(directory: Directory) -> Iterator[str]:
    tables: dict[str, tuple[str, Mapping[str, object]]] = {
        "planner": ("planners", directory.planners),
        "booking_system": ("booking_systems", directory.booking_systems),
        "supplier": ("suppliers", directory.suppliers),
    }
    for code, jobcenter in directory.jobcenters.items():
        for key, (table, known) in tables.items():
            name = getattr(jobcenter, key)
            if name not in known:
                yield f"jobcenters.{code}.{key}: names {name!r}, but there is no table [{table}.{name}]"


def load_directory(path: Path | None) -> Directory:
    """The directory file at `path`, with its relative paths resolved. Raises ConfigProblem with every wrong key."""
    if path is None:
        raise ConfigProblem([NO_DIRECTORY])
    try:
        directory = Directory.model_validate(read_toml(path))
    except ValidationError as error:
        raise ConfigProblem(f"{path.name}: {sentence}" for sentence in sentences(error, Directory)) from None
    return directory.model_copy(
        update={
            table: {
                name: _rooted(system, path.resolve().parent)
                for name, system in getattr(directory, table).items()
            }
            for table in TABLES
        }
    )


def _rooted(system: S, root: Path) -> S:
    update: dict[str, Any] = {key: root / path for key in FILES if (path := getattr(system, key))}
    if isinstance(system, Supplier):
        update["webhook_secret_files"] = tuple(root / path for path in system.webhook_secret_files)
    return system.model_copy(update=update)


def content_hash(path: Path | None) -> str:
    """A hash of the file's contents; "" if there is none or it cannot be read."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def file_contents(directory: Directory) -> dict[str, str]:
    """The hash of each file that the directory names, by its key: `planners.nord.client_cert`. Reads the files."""
    found = {}
    for table in TABLES:
        for name, system in getattr(directory, table).items():
            for key in FILES:
                if (path := getattr(system, key)) is not None:
                    found[f"{table}.{name}.{key}"] = content_hash(path)
            for number, path in enumerate(getattr(system, "webhook_secret_files", ())):
                found[f"{table}.{name}.webhook_secret_files.{number}"] = content_hash(path)
    return found


def differences(old: Directory, new: Directory) -> list[str]:
    """One line for each jobcenter, system and supplier that is new, gone or changed, with the keys that changed."""
    found = []
    for table in (*TABLES, "jobcenters"):
        before, after = getattr(old, table), getattr(new, table)
        for name in sorted(before.keys() | after.keys()):
            if name not in after:
                found.append(f"{table}.{name}: removed")
            elif name not in before:
                found.append(f"{table}.{name}: added")
            elif before[name] != after[name]:
                keys = [key for key, value in before[name] if value != getattr(after[name], key)]
                found.append(f"{table}.{name}: {', '.join(keys)}")
    return found


def changed_systems(old: Directory, new: Directory) -> set[str]:
    """Names of the systems and suppliers of `old` that `new` removes, or whose address it changes.

    A first address of a supplier is not a change: nothing was sent to that supplier before.
    """
    return {
        name
        for table in TABLES
        for name, system in getattr(old, table).items()
        if _moved(system, getattr(new, table).get(name))
    }


def _moved(before: SystemConfig, after: SystemConfig | None) -> bool:
    return after is None or (before.base_url != "" and after.base_url != before.base_url)
