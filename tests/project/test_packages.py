"""pyproject.toml and the lock files: every imported package is declared, and `make run` installs no test tools."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from scripts.processes import ROOT

PRODUCT = ("broker", "schemas", "config", "sandbox", "scripts")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[object]) -> set[str]:
    """The packages in a list of requirements, without versions, extras and included groups."""
    found = (re.match(r"[A-Za-z0-9._-]+", each) for each in requirements if isinstance(each, str))
    return {normal(match[0]) for match in found if match}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def pins(lock: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {normal(name): version for name, version in found}


def test_every_imported_package_is_declared() -> None:
    declared = names(PROJECT["project"]["dependencies"])
    owners = packages_distributions()
    modules = {name for part in PRODUCT for file in (ROOT / part).rglob("*.py") for name in imported(file)}
    foreign = modules - sys.stdlib_module_names - set(PRODUCT)
    undeclared = {name for name in foreign if not declared & set(map(normal, owners.get(name, [])))}
    assert undeclared == set()


def test_make_run_installs_no_test_tools() -> None:
    groups = PROJECT["dependency-groups"]
    assert names(groups["dev"]) & set(pins("requirements.lock")) == set()
    assert names(groups["build"]) <= set(pins("requirements.lock"))


def test_tests_run_with_the_versions_that_are_shipped() -> None:
    development = pins("requirements-dev.lock")
    assert {name: development.get(name) for name in pins("requirements.lock")} == pins("requirements.lock")
    assert names(PROJECT["dependency-groups"]["dev"]) <= set(development)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_has_hashes_and_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text)
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert [entry.partition(" ")[0] for entry in entries if "--hash=sha256:" not in entry] == []
