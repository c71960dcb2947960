"""The directory: which mistakes are refused and in which words, and that it can be written and read back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from config.directory import Directory, changed_systems, differences, file_contents, load_directory
from config.settings import DEFAULTS
from config.sources import ConfigProblem
from tests.config.support import dump_directory

EXAMPLE = DEFAULTS.with_name("directory.toml")

GOOD = """
[suppliers.hus]
name = "Hus"
[planners.plan]
base_url = "https://plan.example/a/"
[booking_systems.tider]
base_url = "https://tider.example:8443"
[jobcenters.90101]
name = "By"
planner = "plan"
booking_system = "tider"
supplier = "hus"
"""
PLAIN = 'base_url = "http://a"\nallow_http = true'
ADDRESS = 'base_url = "https://tider.example:8443"'


def written(folder: Path, text: str) -> Path:
    path = folder / "directory.toml"
    path.write_text(text)
    return path


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigProblem) as caught:
        load_directory(written(folder, text))
    return caught.value.problems


def test_the_example_describes_invented_systems_only() -> None:
    directory = load_directory(EXAMPLE)
    assert (len(directory.jobcenters), len(directory.planners)) == (12, 2)
    assert (len(directory.booking_systems), len(directory.suppliers)) == (6, 4)
    everyone = [*(system for _, system in directory.systems()), *directory.suppliers.values()]
    assert all(re.search(r"\.example(/|$)", system.base_url) for system in everyone)


def test_a_jobcenter_is_found_by_its_code_and_only_by_it(tmp_path: Path) -> None:
    directory = load_directory(written(tmp_path, GOOD))
    jobcenter = directory.jobcenter("90101")
    assert jobcenter is not None
    assert (jobcenter.planner, jobcenter.booking_system, jobcenter.supplier) == ("plan", "tider", "hus")
    assert directory.jobcenter("90102") is None
    assert directory.planners["plan"].base_url == "https://plan.example/a"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            'planner = "plan"',
            'planner = "plam"',
            "jobcenters.90101.planner: names 'plam', but there is no table [planners.",
        ),
        (
            'booking_system = "tider"',
            'booking_system = "x"',
            "jobcenters.90101.booking_system: names 'x', but there is no",
        ),
        ('supplier = "hus"', 'supplier = "x"', "jobcenters.90101.supplier: names 'x', but there is no table"),
        ('supplier = "hus"', "", "jobcenters.90101.supplier: must be set"),
        ("jobcenters.90101", "jobcenters.9010", "jobcenters.9010: string must match pattern"),
        ("suppliers.hus", 'suppliers."Hus & Co"', "suppliers.Hus & Co: string must match pattern"),
        (
            "https://tider",
            "http://tider",
            "booking_systems.tider: base_url must be https: CPR numbers are sent to it",
        ),
        ("https://tider", "ftp://tider", "booking_systems.tider.base_url: must begin with https://"),
        (
            "https://tider",
            "https://user:hemmeligt@tider",
            "booking_systems.tider.base_url: must not hold a user",
        ),
        (":8443", ":8443/a?b=c", "booking_systems.tider.base_url: must end before any ?"),
        (":8443", ":8443/a#b", "booking_systems.tider.base_url: must end before any ?"),
        (":8443", ":84430", "booking_systems.tider.base_url: must be a URL"),
        (":8443", "/a b", "booking_systems.tider.base_url: must be of printable ASCII"),
        (
            ADDRESS,
            ADDRESS + '\nclient_cert = "a.pem"',
            "booking_systems.tider: client_cert and client_key must",
        ),
        (
            ADDRESS,
            ADDRESS + '\nbearer_token = "hemmeligt"',
            "booking_systems.tider.bearer_token: is not a known key",
        ),
        (
            ADDRESS,
            ADDRESS + '\nbearer_token_env = "A"\nbearer_token_file = "a"',
            "booking_systems.tider: bearer_token_file and",
        ),
        (
            ADDRESS,
            PLAIN + '\nca_file = "a"',
            "booking_systems.tider: ca_file and client_cert do nothing with http",
        ),
        (
            ADDRESS,
            ADDRESS + "\nin_flight = 0",
            "booking_systems.tider.in_flight: must be greater than or equal to 1",
        ),
    ],
)
def test_a_mistake_is_reported_with_table_and_key(old: str, new: str, why: str, tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, GOOD.replace(old, new))
    assert problem.startswith(f"directory.toml: {why}")
    assert "hemmeligt" not in problem


def test_an_unknown_key_of_a_jobcenter_comes_with_the_nearest_known_one(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, GOOD.replace("planner =", "planer ="))
    known = "jobcenters.90101.planner"
    assert problems == [
        f"directory.toml: {known}: must be set",
        f"directory.toml: jobcenters.90101.planer: is not a known key; did you mean {known}?",
    ]


def test_every_unknown_name_is_reported_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('planner = "plan"', 'planner = "a"').replace('supplier = "hus"', 'supplier = "b"')
    assert [problem.split(":")[1] for problem in problems_of(tmp_path, text)] == [
        " jobcenters.90101.planner",
        " jobcenters.90101.supplier",
    ]


def test_relative_files_start_at_the_directory(tmp_path: Path) -> None:
    text = GOOD.replace(ADDRESS, ADDRESS + '\nca_file = "tls/ca.pem"\nbearer_token_file = "/run/token"')
    system = load_directory(written(tmp_path, text)).booking_systems["tider"]
    assert system.ca_file == tmp_path.resolve() / "tls/ca.pem"
    assert system.bearer_token_file == Path("/run/token")


def test_a_bearer_token_is_read_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace(ADDRESS, ADDRESS + '\nbearer_token_file = "token"')
    by_file = load_directory(written(tmp_path, text)).booking_systems["tider"]
    with pytest.raises(ConfigProblem, match="cannot be read"):
        by_file.bearer_token()
    (tmp_path / "token").write_text("abc\n")
    assert by_file.bearer_token() == "abc"

    text = GOOD.replace(ADDRESS, ADDRESS + '\nbearer_token_env = "TIDER_TOKEN"')
    by_variable = load_directory(written(tmp_path, text)).booking_systems["tider"]
    with pytest.raises(ConfigProblem, match="TIDER_TOKEN is not set"):
        by_variable.bearer_token()
    monkeypatch.setenv("TIDER_TOKEN", "def")
    assert by_variable.bearer_token() == "def"
    assert load_directory(written(tmp_path, GOOD)).booking_systems["tider"].bearer_token() is None


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("", "", set()),
        ("tider.example", "ny.example", {"tider"}),
        ("plan.example", "ny.example", {"plan"}),
        ('"By"', '"Ny By"', set()),
        (ADDRESS, ADDRESS + "\nin_flight = 3", set()),
        ("suppliers.hus", "suppliers.ny", {"hus"}),
        ('name = "Hus"', 'name = "Nyt Hus"', set()),
        ('name = "Hus"', 'name = "Hus"\nbase_url = "https://a.example"', set()),
    ],
)
def test_changed_systems_are_those_removed_or_with_another_address(
    old: str, new: str, changed: set[str], tmp_path: Path
) -> None:
    before = load_directory(written(tmp_path, GOOD))
    text = GOOD.replace(old, new) if old else GOOD
    if old.startswith("suppliers"):
        text = text.replace('supplier = "hus"', 'supplier = "ny"')
    assert changed_systems(before, load_directory(written(tmp_path, text))) == changed


def test_an_added_system_changes_nothing_for_the_others(tmp_path: Path) -> None:
    before = load_directory(written(tmp_path, GOOD))
    after = load_directory(written(tmp_path, GOOD + '\n[planners.ny]\nbase_url = "https://ny.example"\n'))
    assert changed_systems(before, after) == set()
    assert changed_systems(after, before) == {"ny"}


names = some.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True)
codes = some.from_regex(r"[0-9]{5}", fullmatch=True)
titles = some.text(some.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
systems = some.fixed_dictionaries(
    {"base_url": some.just("http://127.0.0.1:8080"), "allow_http": some.just(True)},
    optional={"in_flight": some.integers(1, 99), "total_timeout_seconds": some.floats(0.1, 99)},
)


suppliers = some.fixed_dictionaries(
    {"name": titles},
    optional={
        "base_url": some.just("https://fejl.example"),
        "in_flight": some.integers(1, 99),
        "rate_per_second": some.floats(0.1, 99),
        "report_codes": some.lists(some.sampled_from([2, 3, 4]), unique=True),
        "status_means": some.dictionaries(
            some.sampled_from(["200", "409", "422"]),
            some.sampled_from(["delivered", "retry", "dead", "park"]),
        ),
    },
)


@some.composite
def directories(draw: some.DrawFn) -> Directory:
    """Any directory whose jobcenters name what it describes."""
    tables: dict[str, Any] = {
        "planners": draw(some.dictionaries(names, systems, min_size=1, max_size=3)),
        "booking_systems": draw(some.dictionaries(names, systems, min_size=1, max_size=3)),
        "suppliers": draw(some.dictionaries(names, suppliers, min_size=1, max_size=3)),
    }
    jobcenter = some.fixed_dictionaries(
        {
            "name": titles,
            "planner": some.sampled_from(sorted(tables["planners"])),
            "booking_system": some.sampled_from(sorted(tables["booking_systems"])),
            "supplier": some.sampled_from(sorted(tables["suppliers"])),
        }
    )
    tables["jobcenters"] = draw(some.dictionaries(codes, jobcenter, min_size=1, max_size=5))
    return Directory.model_validate(tables)


# The folder is only written over; nothing is carried from one example to the next.
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(directory=directories())
def test_what_is_written_reads_back_the_same(directory: Directory, tmp_path: Path) -> None:
    path = tmp_path / "written.toml"
    path.write_text(dump_directory(directory), encoding="utf-8")
    assert load_directory(path) == directory


def test_the_contents_of_each_named_file_are_compared(tmp_path: Path) -> None:
    text = GOOD.replace("[booking_systems.tider]", '[booking_systems.tider]\nbearer_token_file = "token"')
    (tmp_path / "token").write_text("one")
    directory = load_directory(written(tmp_path, text))
    before = file_contents(directory)
    assert list(before) == ["booking_systems.tider.bearer_token_file"]
    (tmp_path / "token").write_text("two")
    assert file_contents(directory).keys() == before.keys()
    assert file_contents(directory) != before
    (tmp_path / "token").unlink()
    assert file_contents(directory) == {"booking_systems.tider.bearer_token_file": ""}


def test_what_a_reload_changes_is_named_by_key(tmp_path: Path) -> None:
    before = load_directory(written(tmp_path, GOOD))
    assert differences(before, before) == []
    changed = GOOD.replace("[booking_systems.tider]", "[booking_systems.tider]\nin_flight = 3")
    after = load_directory(written(tmp_path, changed + '\n[planners.ny]\nbase_url = "https://ny.example"\n'))
    assert differences(before, after) == ["planners.ny: added", "booking_systems.tider: in_flight"]
    assert differences(after, before) == ["planners.ny: removed", "booking_systems.tider: in_flight"]
