"""Sources of settings: TOML files, the environment, and files that the environment names.

They are merged into one dictionary. No text of an error repeats a value, because it may be a secret.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

PREFIX = "JOBNET_BROKER__"
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_SECRET_BYTES = 64 * 1024

Tree = dict[str, Any]
Where = tuple[str, ...]


class ConfigProblem(Exception):
    """The configuration cannot be used; `problems` has one sentence per bad key, without secret values."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems: list[str] = list(problems)
        super().__init__("the configuration cannot be used:\n" + "\n".join(f"  {p}" for p in self.problems))


def read_toml(path: Path) -> Tree:
    """A TOML file as a dictionary. Raises ConfigProblem if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(_read(path, MAX_FILE_BYTES))
    except tomllib.TOMLDecodeError as error:
        raise ConfigProblem([f"{path}: is not TOML: {error}"]) from None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """A new dictionary: `base`, overridden by `changes`, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = (
            merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def from_environment(environment: Mapping[str, str] | None = None) -> tuple[Tree, list[str]]:
    """The settings in JOBNET_BROKER__SECTION__KEY and …__KEY_FILE variables, and one sentence per problem."""
    environment = os.environ if environment is None else environment
    tree: Tree = {}
    problems: list[str] = []
    # Whole sections first, so that a variable for a single key overrides its section.
    for name in sorted((n for n in environment if n.startswith(PREFIX)), key=lambda n: (n.count("__"), n)):
        try:
            tree = merge(tree, _one_variable(name, environment))
        except ConfigProblem as problem:
            problems += problem.problems
    return tree, problems


def environment_with(key: str, value: str) -> dict[str, str]:
    """The environment for a child process, with the setting `section.key` and no other variable for it."""
    name = PREFIX + key.upper().replace(".", "__")
    kept = {n: text for n, text in os.environ.items() if n.upper() not in (name, f"{name}_FILE")}
    return kept | {name: value}


def _one_variable(name: str, environment: Mapping[str, str]) -> Tree:
    where, text = name.removeprefix(PREFIX).lower().split("__"), environment[name]
    # `directory.file` is a setting, so _FILE means a file only if a name stands in front of it.
    if where[-1].endswith("_file"):
        where[-1] = where[-1].removesuffix("_file")
        direct = name[: -len("_file")]
        if direct in environment:
            raise ConfigProblem([f"{name} and {direct} are both set; remove one"])
        text = read_secret(Path(text), name)
    if not all(where) or len(where) > 2:
        raise ConfigProblem([f"{name}: must have the form {PREFIX}SECTION__KEY"])
    value: Any = _parsed(text)
    if len(where) == 1 and not isinstance(value, dict):
        raise ConfigProblem([f"{name}: names a whole section, so it must be a JSON object"])
    for key in reversed(where):
        value = {key: value}
    return cast(Tree, value)


def _parsed(text: str) -> Any:
    """Tables and lists are parsed as JSON; other values stay text, which pydantic converts."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def read_secret(path: Path, named_by: str) -> str:
    """The text of a secret file without the line end. Raises ConfigProblem with the name of the variable or key."""
    try:
        text = _read(path, MAX_SECRET_BYTES).rstrip("\r\n")
    except ConfigProblem as problem:
        raise ConfigProblem([f"{named_by}: {p}" for p in problem.problems]) from None
    if not text:
        raise ConfigProblem([f"{named_by}: {path}: is empty"])
    return text


def _read(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ConfigProblem([f"{path}: is larger than {limit} bytes"])
        return data.decode()
    except OSError as error:
        raise ConfigProblem([f"{path}: cannot be read: {error.strerror or type(error).__name__}"]) from None
    except UnicodeDecodeError:
        raise ConfigProblem([f"{path}: is not UTF-8"]) from None


def sentences(error: ValidationError, model: type[BaseModel], hints: Mapping[str, str] = {}) -> list[str]:
    """pydantic's errors as sentences `section.key: must …`, without values.

    The sentence about an unknown key names the most similar known key; that about a missing key has the hint for it.
    """
    found: list[str] = []
    for each in error.errors(include_input=False, include_url=False, include_context=False):
        found += _worded(each["type"], tuple(str(part) for part in each["loc"]), each["msg"], model, hints)
    return found


def _worded(
    kind: str, where: Where, text: str, model: type[BaseModel], hints: Mapping[str, str]
) -> list[str]:
    name = ".".join(part for part in where if part != "[key]")
    if kind == "extra_forbidden":
        return [f"{name}: is not a known key{_nearest(where, model)}"]
    if kind == "missing":
        return [f"{name}: must be set" + (f"; {hints[name]}" if name in hints else "")]
    text = text.removeprefix("Value error, ").replace("Input should", "must").replace("should", "must")
    # The text of a validator of a whole model names the keys, one line each.
    return [f"{name}: {text[:1].lower()}{text[1:]}"] if name else text.split("\n")


def _nearest(where: Where, model: type[BaseModel]) -> str:
    near = difflib.get_close_matches(where[-1], _known_keys(model, where[:-1]), n=1)
    return f"; did you mean {'.'.join((*where[:-1], near[0]))}?" if near else ""


def _known_keys(model: Any, table: Where) -> list[str]:
    """The keys of the model at the path `table`; in a dictionary of models any name matches."""
    for part in table:
        if get_origin(model) is dict:
            model = get_args(model)[1]
        elif isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = model.model_fields[part].annotation
        else:
            return []
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
