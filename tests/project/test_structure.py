"""The house keeps its order: one name for one thing, one acknowledgement in each story.

Import rules are in pyproject.toml (import-linter); what documents name is checked in tests/project/test_documents.py.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from scripts.processes import ROOT

BROKER = ROOT / "broker"
PAGES = BROKER / "console" / "pages"
"""Pages are named after their addresses, so they may share a name with the module whose data they show."""
EVERY_PACKAGE_HAS = {"__init__.py", "__main__.py"}

STORIES = ("broker/requests/pipeline.py", "broker/reports/delivery.py", "broker/dead_letters/reconcile.py")
ACKS = re.compile(r"\.ack\(")


@cache
def modules() -> dict[Path, ast.Module]:
    """Every module of the broker, parsed."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(BROKER.rglob("*.py"))}


def repeated(named: Iterator[tuple[str, Path]]) -> dict[str, list[str]]:
    """Names that stand for more than one thing, each with its places."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, path in named:
        places[name].append(path.relative_to(ROOT).as_posix())
    return {name: found for name, found in places.items() if len(found) > 1}


def test_a_class_name_stands_for_one_class() -> None:
    classes = [
        (node.name, path)
        for path, module in modules().items()
        for node in module.body
        if isinstance(node, ast.ClassDef)
    ]
    assert len(classes) > 200
    assert not repeated(iter(classes))


def test_a_module_name_stands_for_one_module() -> None:
    named = [(path.name, path) for path in modules() if PAGES not in path.parents]
    assert not repeated((name, path) for name, path in named if name not in EVERY_PACKAGE_HAS)


@pytest.mark.parametrize("story", STORIES)
def test_a_story_acknowledges_in_one_place(story: str) -> None:
    assert len(ACKS.findall((ROOT / story).read_text())) == 1


def test_nothing_else_acknowledges() -> None:
    """The doors to RabbitMQ define the call; the stories alone make it."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in modules()
        if BROKER / "rabbitmq" not in path.parents and ACKS.search(path.read_text())
    }
    assert found == set(STORIES)


def test_no_module_imports_at_type_checking_only_to_hide_a_circle() -> None:
    own = re.compile(r"if TYPE_CHECKING:\n(?: {4}.*\n)*? {4}from (?:broker|config|schemas)\b")
    files = [path for root in ("broker", "config", "schemas") for path in (ROOT / root).rglob("*.py")]
    assert not [path.relative_to(ROOT).as_posix() for path in files if own.search(path.read_text())]
