"""Checks of settings whose single values are valid: dangerous combinations, keys, answer queues, missing files.

load.py refuses settings with problems; the start, a reload and `jobnet-broker config check` check the directory too.
Only `secret_problems` reads files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from config.combinations import ALL_DANGERS, DANGERS, REPORT_DANGERS, Danger
from config.directory import Directory
from config.sections import HttpLimits, KeySettings
from config.settings import Settings
from config.sources import ConfigProblem
from config.suppliers import Supplier
from config.systems import SystemConfig

KEYS_ABSENT = (
    "keys: are not set; `jobnet-broker config keys` prints a fresh set as variables of the environment: keep"
    " them where secrets are kept"
)


def problems(settings: Settings, directory: Directory | None = None) -> list[str]:
    """One sentence for each dangerous combination, missing key and missing file."""
    found = [*_key_problems(settings.keys), *_reply_to_problems(settings)]
    limits = settings.limits()
    found += [_sentence(danger, settings) for danger in ALL_DANGERS if danger.when(settings, limits)]
    if directory:
        for where, system in directory.systems():
            found += _system_problems(where, system, settings)
        for name, supplier in directory.suppliers.items():
            found += _supplier_problems(f"suppliers.{name}", supplier, settings)
    return found


def secret_problems(directory: Directory) -> list[str]:
    """One sentence for each bearer token and webhook secret that is not set or cannot be used, without its value.

    Reads the environment and files; a file that is not there is one of `problems`.
    """
    found: list[str] = []
    suppliers = ((f"suppliers.{name}", supplier) for name, supplier in directory.suppliers.items())
    for where, system in (*directory.systems(), *suppliers):
        readers: list[Callable[[], object]] = [system.bearer_token]
        if isinstance(system, Supplier) and all(path.is_file() for path in system.webhook_secret_files):
            readers.append(system.webhook_secrets)
        if system.bearer_token_file and not system.bearer_token_file.is_file():
            readers.remove(system.bearer_token)
        for read in readers:
            try:
                read()
            except ConfigProblem as problem:
                found += [f"{where}.{sentence}" for sentence in problem.problems]
    return found


def notices(directory: Directory) -> list[str]:
    """Warnings about allowed settings: CPR numbers sent unencrypted, suppliers without an address."""
    suppliers = {f"suppliers.{name}": supplier for name, supplier in directory.suppliers.items()}
    found = [
        f"{where}: allow_http is set: CPR numbers go to this system unencrypted"
        for where, system in (*directory.systems(), *suppliers.items())
        if system.base_url.startswith("http://")
    ]
    return found + [
        f"{where}: has no base_url: its failure reports wait in the ledger and are not sent"
        for where, supplier in suppliers.items()
        if not supplier.has_address
    ]


def _sentence(danger: Danger, settings: Settings) -> str:
    values = ", ".join(f"{key} = {_shown(settings, key)}" for key in danger.keys)
    return f"{values}: {danger.why}"


def _shown(settings: Settings, key: str) -> Any:
    section, name = key.split(".")
    return (
        getattr(settings.limits(), name) if section == "http" else getattr(getattr(settings, section), name)
    )


def _system_problems(where: str, system: SystemConfig, settings: Settings) -> Iterator[str]:
    yield from _missing_files(where, system)
    overridden = set(system.overrides)
    usual, limits = settings.limits(), system.limits(settings)
    for danger in DANGERS:
        # A combination that is dangerous without this system's overrides too is reported once, for the settings.
        if danger.when(settings, limits) and not danger.when(settings, usual):
            names = ", ".join(_named(key, where, overridden, limits, settings) for key in danger.keys)
            yield f"{names}: {danger.why}"


def _supplier_problems(where: str, supplier: Supplier, settings: Settings) -> Iterator[str]:
    yield from _missing_files(where, supplier)
    for number, path in enumerate(supplier.webhook_secret_files):
        if not path.is_file():
            yield f"{where}.webhook_secret_files.{number}: there is no file {path}"
    lane, limits = supplier.lane(settings.reports), supplier.limits(settings)
    overridden = set(supplier.overrides)
    overridden |= {name for name in type(lane).model_fields if getattr(supplier, name, None) is not None}
    effective = settings.model_copy(update={"reports": lane})
    for danger in REPORT_DANGERS:
        if danger.when(effective, limits) and not danger.when(settings, settings.limits()):
            names = ", ".join(_named(key, where, overridden, limits, effective) for key in danger.keys)
            yield f"{names}: {danger.why}"


def _missing_files(where: str, system: SystemConfig) -> Iterator[str]:
    for key in ("ca_file", "client_cert", "client_key", "bearer_token_file"):
        path = getattr(system, key)
        if path is not None and not path.is_file():
            yield f"{where}.{key}: there is no file {path}"


def _named(key: str, where: str, overridden: set[str], limits: HttpLimits, settings: Settings) -> str:
    section, name = key.split(".")
    full = f"{where}.{name}" if section in ("http", "reports") and name in overridden else key
    return f"{full} = {getattr(limits, name) if section == 'http' else _shown(settings, key)}"


def _reply_to_problems(settings: Settings) -> Iterator[str]:
    for pattern in settings.answers.allowed_reply_to:
        head, star, _ = pattern.partition("*")
        of_broker = head.startswith("jobnet.") and not head.startswith("jobnet.answers.")
        if of_broker or (star and "jobnet.".startswith(head)):
            yield (
                f"answers.allowed_reply_to: {pattern} could match a queue of the broker, and a message must"
                " not direct answers there; under jobnet. only jobnet.answers.… may be allowed"
            )


def _key_problems(keys: KeySettings) -> Iterator[str]:
    if not keys.sealing and not keys.tokens:
        yield KEYS_ABSENT
        return
    if keys.seal_with not in keys.sealing:
        yield "keys.seal_with: must be the id of a key in keys.sealing"
    if not keys.token_order:
        yield "keys.token_order: must name the keys in keys.tokens, oldest first"
    if unknown := set(keys.token_order) - set(keys.tokens):
        yield f"keys.token_order: names keys that are not in keys.tokens: {', '.join(sorted(unknown))}"
    if left := set(keys.tokens) - set(keys.token_order):
        yield f"keys.token_order: leaves out keys of keys.tokens: {', '.join(sorted(left))}"
    if len(set(keys.token_order)) < len(keys.token_order):
        yield "keys.token_order: names a key twice"
    yield from _shared_keys(keys)


def _shared_keys(keys: KeySettings) -> Iterator[str]:
    """The same key under two ids is an error: removing one id would leave the key in use."""
    names = {f"keys.sealing.{i}": k for i, k in keys.sealing.items()}
    names |= {f"keys.tokens.{i}": k for i, k in keys.tokens.items()}
    uses = Counter(key.get_secret_value() for key in names.values())
    shared = [name for name, key in names.items() if uses[key.get_secret_value()] > 1]
    if shared:
        yield f"{', '.join(shared)}: are the same key; each purpose and each id needs its own"
