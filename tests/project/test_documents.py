"""The documents hold: anchors, files, tests, words and statements that they or the code name exist.

The runbook's commands are checked in tests/monitoring/test_rules.py, README's figures in tests/project/test_readme.py.
"""

from __future__ import annotations

import html
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from scripts.processes import ROOT

FOLDERS = ("broker", "schemas", "config", "sandbox", "scripts", "bench", "tests", "monitoring", "docs", ".ci")
KINDS = {".py", ".md", ".toml", ".json", ".yml", ".yaml", ".html", ".js", ".css", ".mako", ".dot", ""}
GENERATED = {"docs/benchmarks.md", "docs/reliability.md"}
LONGEST_LINE = 120

DOCUMENT = r"(?P<file>(?:\.\./|docs/|adr/)*[A-Za-z][\w-]*\.md)"
REFERENCE = re.compile(DOCUMENT + r"#(?P<anchor>[\w-]+)")
LINK = re.compile(r"\]\((?!https?://)(?P<file>[^)#\s]*)(?:#(?P<anchor>[\w-]+))?\)")
RULE = re.compile(r"(?<![\w.`-])R(?P<number>[1-9][0-9]?)(?![\w.-])")
DECISION = re.compile(r"\bADR (?P<number>[0-9]{1,4})\b")
RECORD = re.compile(r"docs/adr/(?P<name>[0-9]{4}[\w-]*(?:\.md)?)")
TOP = "|".join(name for name in FOLDERS if name != ".ci")
NAMED_PATH = re.compile(rf"`(?P<path>(?:{TOP})/[\w./*-]*)(?:::(?P<test>\w+))?`")
EMPHASISED = re.compile(r"(?<!\*)\*([^*]+)\*(?!\*)")
STATEMENT = re.compile(r"`(?P<path>broker/ledger/[\w/]+\.py)`,? `(?P<name>\w+)`")

# Put together here, so that this file does not hold what it looks for.
GONE = re.compile(
    "|".join(("DES" + "IGN", r"(?:cra" + r"ft|dom" + r"ain|deliv" + r"ery)\.md", "iss" + "ue [0-9]"))
)
NOT_IN_A_SCHEMA = re.compile(r"\.md\b|docs/|\bADR\b|\bR[0-9]+\b|\b[Rr]ules? [0-9]|" + GONE.pattern)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def texts() -> dict[str, str]:
    """Every text of the project by its path: code, settings, documents."""
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix in KINDS and "__pycache__" not in path.parts]
    return {_name(path): path.read_text(encoding="utf-8") for path in sorted(kept) if not path.is_symlink()}


@cache
def documents() -> dict[str, str]:
    """The pages, by their path."""
    return {name: text for name, text in texts().items() if name.endswith(".md")}


def sources() -> Iterator[tuple[str, str]]:
    """Texts that may cite a page. This file holds patterns, and results of tools cite nothing."""
    for name, text in texts().items():
        if name != "tests/project/test_documents.py" and name not in GENERATED and not name.endswith(".json"):
            yield name, text


def anchors(document: str) -> set[str]:
    """Explicit ids, and those that GitHub makes of headings."""
    text = re.sub(r"^```.*?^```", "", documents()[document], flags=re.M | re.S)
    explicit = set(re.findall(r'<a id="([\w-]+)"></a>', text))
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ (.+)$", text, re.M))
    return explicit | {heading.replace(" ", "-") for heading in headings}


def resolved(file: str, source: str) -> str:
    """The path of a cited page: beside the page that cites it, else of the repository or of docs/."""
    beside = (ROOT / source).parent / file
    for path in (beside, ROOT / file, ROOT / "docs" / file):
        if path.exists():
            return _name(path.resolve())
    return file


def test_something_was_looked_at() -> None:
    assert len(documents()) > 30
    assert "broker/errors.py" in texts()


@pytest.mark.parametrize("document", sorted(documents()))
def test_a_page_links_to_what_exists(document: str) -> None:
    text = re.sub(r"^```.*?^```", "", documents()[document], flags=re.M | re.S)
    wrong = []
    for found in LINK.finditer(text):
        target = (ROOT / document).parent / found["file"] if found["file"] else ROOT / document
        if not target.exists():
            wrong.append(found[0])
        elif found["anchor"] and target.suffix == ".md":
            name = _name(target.resolve())
            wrong += [found[0]] if found["anchor"] not in anchors(name) else []
    assert not wrong


def test_every_anchor_that_is_cited_exists() -> None:
    wrong = []
    for source, text in sources():
        for found in REFERENCE.finditer(text):
            name = resolved(found["file"], source)
            if name not in documents() or found["anchor"] not in anchors(name):
                wrong.append(f"{source}: {found[0]}")
    assert not wrong


def test_every_rule_that_is_cited_exists() -> None:
    known = anchors("docs/rules.md")
    cited = {
        (source, found[0])
        for source, text in sources()
        if source.endswith((".py", ".md"))
        for found in RULE.finditer(text)
    }
    assert not {(source, rule) for source, rule in cited if rule not in known}


def test_every_decision_that_is_cited_exists() -> None:
    records = {Path(name).stem for name in documents() if re.match(r"docs/adr/[0-9]{4}-", name)}
    numbers = {int(record[:4]) for record in records}
    assert len(numbers) == len(records), "two records have one number"
    wrong = []
    for source, text in sources():
        wrong += [f"{source}: {f[0]}" for f in DECISION.finditer(text) if int(f["number"]) not in numbers]
        for found in RECORD.finditer(text):
            name = found["name"].removesuffix(".md")
            if name not in records and not (name.isdigit() and int(name) in numbers):
                wrong.append(f"{source}: {found[0]}")
    assert not wrong


@pytest.mark.parametrize("record", [name for name in sorted(documents()) if re.match(r"docs/adr/0", name)])
def test_a_decision_has_its_parts_and_its_row(record: str) -> None:
    text = documents()[record]
    number, title = re.findall(r"^# ([0-9]+)\. (.+)$", text, re.M)[0]
    assert int(number) == int(Path(record).name[:4])
    assert re.search(
        r"^Status: (accepted|superseded by ADR [0-9]+)\. Date: 20[0-9]{2}-[0-9]{2}-[0-9]{2}\.$", text, re.M
    )
    assert re.findall(r"^## (.+)$", text, re.M) == [
        "Context",
        "Decision",
        "Consequences",
        "Alternatives considered",
    ]
    assert f"| {number} | [{title}]({Path(record).name}) |" in documents()["docs/adr/README.md"]


@pytest.mark.parametrize("document", sorted(documents()))
def test_every_file_and_test_that_a_page_names_exists(document: str) -> None:
    wrong = []
    for found in NAMED_PATH.finditer(documents()[document]):
        path = found["path"]
        there = list(ROOT.glob(path)) if "*" in path else [ROOT / path] if (ROOT / path).exists() else []
        if not there:
            wrong.append(path)
        elif found["test"] and not re.search(rf"\bdef {found['test']}\b", there[0].read_text()):
            wrong.append(found[0])
    assert not wrong


def test_the_statements_that_the_states_name_exist() -> None:
    wrong = [
        f"{found['path']} {found['name']}"
        for found in STATEMENT.finditer(documents()["docs/states.md"])
        if not re.search(rf"\b{found['name']}\b", texts().get(found["path"], ""))
    ]
    assert not wrong


def test_every_file_that_changes_a_state_is_named_in_the_states() -> None:
    changes = re.compile(r"\b(?:UPDATE|INSERT INTO|DELETE FROM) (?:requests|reports|lanes)\b")
    writers = [
        name
        for name, text in texts().items()
        if name.startswith("broker/ledger/") and "migrations" not in name and changes.search(text)
    ]
    assert writers
    assert not [name for name in writers if f"`{name}`" not in documents()["docs/states.md"]]


def test_the_list_of_advisory_locks_is_that_of_the_code() -> None:
    ids = dict(
        re.findall(r"^(\w+) = (0x[0-9A-F]+)$", texts()["broker/ledger/postgres/advisory_locks.py"], re.M)
    )
    users = {
        (number, bytes.fromhex(number[2:]).decode(), name, file)
        for file, text in texts().items()
        for name, number in ids.items()
        if file.startswith("broker/")
        and re.search(rf"^from broker\.ledger\.postgres\.advisory_locks import \b{name}\b", text, re.M)
    }
    row = re.compile(r'^\| `(0x[0-9A-F]+)` \| "(\w+)" \| `(\w+)` \| [^|]+ \| `([\w/.]+)` \|$', re.M)
    assert len(ids) >= 4
    assert {user[2] for user in users} == set(ids)
    assert set(row.findall(documents()["docs/architecture.md"])) == users


def test_every_file_that_takes_an_advisory_lock_is_in_the_list() -> None:
    section = documents()["docs/architecture.md"].split('<a id="advisory-locks"></a>')[1].split("<a id=")[0]
    takers = [name for name, text in texts().items() if name.startswith("broker/") and "advisory_" in text]
    # TableWalk takes the lock that retention names.
    elsewhere = {"broker/ledger/upkeep/table_walk.py"}
    assert len(takers) > 4
    assert not [name for name in takers if f"`{name}`" not in section and name not in elsewhere]


@pytest.mark.parametrize(
    "schema", sorted((ROOT / "schemas" / "json").glob("*.json")), ids=lambda path: path.stem
)
def test_a_published_schema_stands_alone(schema: Path) -> None:
    cited = [line.strip() for line in schema.read_text().splitlines() if NOT_IN_A_SCHEMA.search(line)]
    assert json.loads(schema.read_text())["$id"]
    assert not cited


def test_nothing_cites_what_is_not_in_the_repository() -> None:
    wrong = [
        f"{name}:{number}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if GONE.search(line)
    ]
    assert not wrong


def words() -> list[str]:
    """The first columns of CONTEXT.md's tables of words."""
    found: list[str] = []
    for table in re.findall(r"^\| word \|.*?(?=^$|\Z)", documents()["CONTEXT.md"], re.M | re.S):
        cells = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
        found += [word.removeprefix("the ") for cell in cells for word in cell.split(", ")]
    return found


@cache
def code() -> str:
    """All code and pages of the product and its sandbox."""
    used = re.compile(r"(broker|schemas|config|sandbox)/.*\.(py|html|js)$")
    return "\n".join(text for name, text in texts().items() if used.match(name)).lower()


@pytest.mark.parametrize("word", words())
def test_every_word_of_the_context_is_used_in_the_code(word: str) -> None:
    spelled = re.escape(word.lower()).replace(r"\ ", r"[ _-]?").replace(r"\-", "[ _-]?")
    assert re.search(rf"(?:\b|_){spelled}", code()), f"{word!r} is in CONTEXT.md and in no code"


def test_every_log_event_that_the_runbook_names_is_written() -> None:
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", documents()["docs/operations.md"]))
    assert len(named) > 15
    assert not {event for event in named if f'"{event}"' not in code()}


def test_every_table_whose_rows_are_deleted_is_in_the_list_of_who_may() -> None:
    page = documents()["docs/architecture.md"]
    section = page.split('<a id="who-may-delete-a-row"></a>')[1].split("<a id=")[0]
    deleted = {
        (file, table)
        for file, text in texts().items()
        if file.startswith("broker/") and "/migrations/" not in file
        for table in re.findall(r"\bDELETE FROM (\w+)", text)
    }
    assert len(deleted) > 10
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    listed = {
        (file, table)
        for cells in rows
        for file in re.findall(r"`(broker/[\w/]+\.py)`", cells[2])
        for table in re.findall(r"`(\w+)`", cells[1])
    }
    assert deleted <= listed


def test_the_layers_of_the_page_are_those_of_the_import_contracts() -> None:
    contracts = tomllib.loads(texts()["pyproject.toml"])["tool"]["importlinter"]["contracts"]
    layers = {
        c["containers"][0]: c["layers"] for c in contracts if c["type"] == "layers" and "containers" in c
    }
    section = documents()["docs/architecture.md"].split('<a id="layout"></a>')[1]
    without_drawings = re.sub(r"^```mermaid$.*?^```$", "", section, flags=re.M | re.S)
    broker, ledger = re.findall(r"^```\n(.*?)\n```$", without_drawings, re.M | re.S)
    assert broker.splitlines() == [*layers["broker"], "schemas | config"]
    assert ledger.replace("ledger.py", "ledger").splitlines() == layers["broker.ledger"]


def imports_of_parts() -> dict[str, set[str]]:
    """Each module and package directly below broker/, with those that it imports; also `schemas` and `config`."""
    found: dict[str, set[str]] = {}
    for file, text in texts().items():
        part = re.match(r"broker/([a-z]\w*)[./]", file)
        if part is None:
            continue
        named = re.findall(r"^ *from (?:broker\.)?([a-z]\w*)\b(?:\.[\w.]+)? import ", text, re.M)
        found.setdefault(part[1], set()).update(set(named) - {part[1]})
    return {
        part: {name for name in named if name in {*found, "schemas", "config"}}
        for part, named in found.items()
    }


def test_the_arrows_between_packages_are_those_of_the_imports() -> None:
    imports = imports_of_parts()

    @cache
    def reached(part: str) -> set[str]:
        return imports.get(part, set()).union(*(reached(name) for name in imports.get(part, ())))

    needed = {
        (part, name)
        for part, named in imports.items()
        for name in named
        if not any(name in reached(other) for other in named)
    }
    section = documents()["docs/architecture.md"].split('<a id="layout"></a>')[1]
    drawn = set(re.findall(r"^ +(\w+) --> (\w+)$", section, re.M))
    assert len(needed) > 20
    assert drawn == needed


def test_every_panel_that_the_runbook_names_is_on_the_dashboard() -> None:
    dashboard = json.loads((ROOT / "monitoring" / "grafana" / "jobnet-broker.json").read_text())
    panels = [panel for row in dashboard["panels"] for panel in (row, *row.get("panels", ()))]
    titles = {panel["title"] for panel in panels}
    page = re.sub(r"\s+", " ", documents()["docs/operations.md"])
    named = {words for words in EMPHASISED.findall(page) if words[0].isupper()}
    assert len(named) > 5
    assert not named - titles


def test_every_text_that_the_tour_names_is_on_a_page() -> None:
    pages = re.compile(r"(broker/console|sandbox)/.*\.(py|html|js)$")
    shown = "\n".join(text for name, text in texts().items() if pages.match(name))
    named = set(EMPHASISED.findall(re.sub(r"\s+", " ", documents()["docs/tour.md"])))
    assert len(named) > 15
    assert not {words for words in named if words not in shown}


@pytest.mark.parametrize("document", sorted(set(documents()) - GENERATED))
def test_a_line_of_prose_is_not_longer_than_it_may_be(document: str) -> None:
    text = re.sub(r"^```.*?^```", "", documents()[document], flags=re.M | re.S)
    long = [
        line
        for line in text.splitlines()
        if len(line) > LONGEST_LINE and not line.lstrip().startswith("|") and not re.search(r"\S{80}", line)
    ]
    assert not long


def test_the_picture_is_made_from_its_source() -> None:
    """`make diagrams` was run: every word of the source is in the picture, and no other."""
    folder = ROOT / "docs" / "pictures"
    source, picture = (folder / f"architecture.{kind}" for kind in ("dot", "svg"))
    labels = re.findall(r"label=(?:<(.*?)>(?=\]|, |$)|\"([^\"]*)\")", source.read_text(), re.M)
    written = " ".join(re.sub(r"<[^>]*>", " ", markup or text) for markup, text in labels)
    shown = " ".join(re.findall(r"<text [^>]*>(.*?)</text>", picture.read_text()))
    assert set(html.unescape(written).split()) == set(html.unescape(shown).split())


def test_the_version_of_the_project_is_among_the_releases() -> None:
    version = re.findall(r'^version = "(.+)"$', texts()["pyproject.toml"], re.M)[0]
    assert f"## {version}" in documents()["docs/releases.md"]
    assert re.search(rf"^## {re.escape(version)}\b", documents()["CHANGELOG.md"], re.M)
