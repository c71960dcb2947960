"""Reads all settings of one process and refuses what cannot be used."""

from __future__ import annotations

from pathlib import Path

from config.checks import KEYS_ABSENT, problems
from config.sections import DirectorySettings
from config.settings import EXAMPLE, HINTS, Settings, build
from config.sources import ConfigProblem, Tree, from_environment, merge, read_toml


def load(path: Path | None) -> Settings:
    """Settings from default.toml, the file at `path` and the environment. Raises ConfigProblem with every problem."""
    of_file = read_toml(path) if path else {}
    of_environment, found = from_environment()
    found += [
        f"{key}: is a secret and must not stand in {path}; {HINTS[key]}" for key in _secrets_in(of_file)
    ]
    try:
        settings = build(merge(of_file, of_environment))
        found += problems(settings)
    except ConfigProblem as problem:
        found += problem.problems
        found += [] if of_environment.get("keys") else [KEYS_ABSENT]
    if found:
        raise ConfigProblem(found)
    return settings.model_copy(
        update={"directory": DirectorySettings(file=_directory_file(path, settings.directory.file))}
    )


def _directory_file(path: Path | None, named: Path | None) -> Path | None:
    """The directory's file: the one that is named, else that beside the settings file, but never the example."""
    if named is not None:
        return (path.resolve().parent if path else Path.cwd()) / named
    beside = path.resolve().parent / EXAMPLE.name if path else EXAMPLE
    # The example's jobcenters and addresses are invented: nothing may use them unasked.
    return None if beside == EXAMPLE or (beside.exists() and beside.samefile(EXAMPLE)) else beside


def _secrets_in(tree: Tree) -> list[str]:
    found = ["keys"] if "keys" in tree else []
    for key in ("rabbitmq.url", "ledger.dsn"):
        section, name = key.split(".")
        table = tree.get(section)
        found += [key] if isinstance(table, dict) and name in table else []
    return found
