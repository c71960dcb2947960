"""Reads the state changes out of the ledger's SQL, and watches them in PostgreSQL, for comparison with the tables."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import asyncpg

import broker.ledger
from broker.lanes.lane import LANE_TRANSITIONS, LaneTransition
from broker.ledger.model import REQUEST_TRANSITIONS, Transition
from broker.ledger.reports.report_model import REPORT_TRANSITIONS

TRANSITIONS: dict[str, tuple[Transition | LaneTransition, ...]] = {
    "requests": REQUEST_TRANSITIONS,
    "reports": REPORT_TRANSITIONS,
    "lanes": LANE_TRANSITIONS,
}
DEFAULTS = {"lanes": "open"}
"""The state of an inserted row whose statement names none."""

UPDATE = re.compile(r"\bUPDATE\s+(requests|reports|lanes)\b(?:\s+AS\s+\w+)?\s+SET\b(.*)", re.S | re.I)
INSERT = re.compile(r"\bINSERT\s+INTO\s+(requests|reports|lanes)\s*\(([^)]*)\)", re.S | re.I)
WORD = re.compile(r"'(\w+)'")


@dataclass(frozen=True)
class StateWriter:
    """A statement that writes a column `state`. None: the values are parameters, which the SQL does not show."""

    name: str
    table: str
    before: frozenset[str | None] | None
    after: frozenset[str] | None


def ledger_modules() -> Iterator[tuple[str, Mapping[str, object], str]]:
    """(name below broker.ledger, attributes, source) of every module but the migrations."""
    for found in pkgutil.walk_packages(broker.ledger.__path__, "broker.ledger."):
        if found.ispkg or ".migrations." in found.name:
            continue
        module = importlib.import_module(found.name)
        with open(str(module.__file__), encoding="utf-8") as file:
            yield found.name.removeprefix("broker.ledger."), vars(module), file.read()


def state_writers(modules: Iterable[tuple[str, Mapping[str, object], str]]) -> list[StateWriter]:
    """Every statement that writes `state`. SQL must be a module's constant: elsewhere its name is `<inline>`."""
    writers = []
    for module, attributes, source in modules:
        tree = ast.parse(source)
        for name in _constants(tree):
            if isinstance(statement := attributes.get(name), str):
                writers += _writer(f"{module}.{name}", statement)
        for function in _functions(tree):
            for node in ast.walk(function):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    writers += _writer(f"{module}.<inline>", node.value)
    return writers


def _constants(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else []:
            if isinstance(target, ast.Name):
                yield target.id


def _functions(tree: ast.Module) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _writer(name: str, statement: str) -> list[StateWriter]:
    if (insert := INSERT.search(statement)) is not None:
        table, columns = insert[1], [column.strip() for column in insert[2].split(",")]
        default = None if "state" in columns else frozenset({DEFAULTS[table]})
        return [StateWriter(name, table, frozenset({None}), default)]
    if (update := UPDATE.search(statement)) is None:
        return []
    written, condition = _clauses(update[2])
    if (value := next((v for column, v in written if column == "state"), None)) is None:
        return []
    guards = re.findall(r"\bstate\s*(?:=\s*'\w+'|IN\s*\([^)]*\))", condition)
    before = frozenset(word for guard in guards for word in WORD.findall(guard)) or None
    return [StateWriter(name, update[1], before, _values(value))]


def _values(expression: str) -> frozenset[str] | None:
    """The constants that an expression can give; None if it has a parameter among its results."""
    results = re.findall(r"\b(?:THEN|ELSE)\s+('?[\w.$]+'?)", expression) or [expression.strip()]
    words = [WORD.fullmatch(result) for result in results]
    return frozenset(word[1] for word in words if word) if all(words) else None


def _clauses(text: str) -> tuple[list[tuple[str, str]], str]:
    """The assignments of a SET clause, and everything from WHERE to RETURNING."""
    depth, start, assignments = 0, 0, []
    end = len(text)
    for match in re.finditer(r"[(),]|\b(?:FROM|WHERE|RETURNING)\b", text):
        token = match[0]
        if token in "()":
            depth += 1 if token == "(" else -1
        elif depth == 0:
            assignments.append(text[start : match.start()])
            start = match.end()
            if token != ",":
                end = match.start()
                break
    else:
        assignments.append(text[start:])
    pairs = [assignment.partition("=") for assignment in assignments]
    where = re.search(r"\bWHERE\b(.*?)(?:\bRETURNING\b.*)?$", text[end:], re.S)
    return [(column.strip(), value) for column, _, value in pairs], where[1] if where else ""


def disagreements(writers: Iterable[StateWriter]) -> list[str]:
    """Sentences: statements without a row in their table, rows without a statement, states that do not fit."""
    found = []
    for table, rows in TRANSITIONS.items():
        of_table = {writer.name: writer for writer in writers if writer.table == table}
        named = {row.written_by for row in rows}
        found += [f"{name} writes {table}.state and has no row" for name in sorted(of_table.keys() - named)]
        found += [
            f"{name} has a row, but writes no {table}.state" for name in sorted(named - of_table.keys())
        ]
        for name, writer in of_table.items():
            for what, in_sql, in_table in (
                ("before", writer.before, {row.before for row in rows if row.written_by == name}),
                ("after", writer.after, {row.after for row in rows if row.written_by == name}),
            ):
                if name in named and in_sql is not None and set(in_sql) != in_table:
                    found.append(
                        f"{name}: {what} is {sorted(map(str, in_sql))} in the SQL, else in the table"
                    )
    return found


WATCH = """
CREATE TABLE seen_transitions (table_name text, before text, after text);
CREATE UNIQUE INDEX seen_once ON seen_transitions (table_name, after, coalesce(before, ''));
CREATE FUNCTION see_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen_transitions VALUES (
        TG_TABLE_NAME, CASE TG_OP WHEN 'UPDATE' THEN OLD.state END, NEW.state) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
"""


async def watch_transitions(dsn: str) -> None:
    """From now on PostgreSQL itself writes down every change of a state in this database."""
    sql = await asyncpg.connect(dsn)
    await sql.execute(WATCH)
    for table in TRANSITIONS:
        for event, condition in (("INSERT", ""), ("UPDATE", "WHEN (OLD.state <> NEW.state)")):
            await sql.execute(
                f"CREATE TRIGGER see_{event} AFTER {event} ON {table} FOR EACH ROW {condition}"
                " EXECUTE FUNCTION see_transition()"
            )
    await sql.close()


async def seen_transitions(dsn: str) -> set[tuple[str, str | None, str]]:
    """(table, before, after) of every change since `watch_transitions`."""
    sql = await asyncpg.connect(dsn)
    rows = await sql.fetch("SELECT table_name, before, after FROM seen_transitions")
    await sql.close()
    return {(row["table_name"], row["before"], row["after"]) for row in rows}


def allowed_transitions() -> set[tuple[str, str | None, str]]:
    """(table, before, after) of every row of the transition tables."""
    return {(table, row.before, str(row.after)) for table, rows in TRANSITIONS.items() for row in rows}
