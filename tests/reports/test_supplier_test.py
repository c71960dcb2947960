"""Test reports: only for suppliers with an agreed test citizen, sent through the lane, and in the operators' log."""

from __future__ import annotations

import json

import pytest

from broker import ops
from broker.ledger.operators.operations import Operations
from broker.ops import Actor, Refusal
from config.directory import Directory, load_directory
from config.settings import DEFAULTS
from tests.ledger.support import Sql

BO = Actor("bo", "before the new certificate")
AGREED = "0101364999"


def directory(test_cpr: str | None) -> Directory:
    known = load_directory(DEFAULTS.with_name("directory.toml"))
    supplier = known.suppliers["birkelund"]
    changed = type(supplier).model_validate(supplier.model_dump() | {"test_cpr": test_cpr})
    return known.model_copy(update={"suppliers": {**known.suppliers, "birkelund": changed}})


async def test_a_test_report_is_due_sealed_and_marked_as_a_test(operations: Operations, sql: Sql) -> None:
    report_id = await ops.send_test_report(operations, directory(AGREED), "birkelund", BO)
    row = await sql.fetchrow("SELECT * FROM reports")
    assert (row["state"], row["supplier"], row["type"]) == ("waiting", "birkelund", "report.test.v1")
    content = json.loads(operations.sealer.open(row["content"], of=str(report_id), field="report"))
    assert (content["cpr"], content["fejltekst"][:5]) == (AGREED, "TEST:")
    assert AGREED.encode() not in row["content"]
    [entry] = await operations.log.entries()
    assert (entry.action, entry.subject, entry.details) == (
        "lanes.test",
        str(report_id),
        {"supplier": "birkelund"},
    )
    assert (await operations.lanes.one("birkelund")).waiting == 1
    assert (await operations.stories.whole(report_id)).reports[0].report.report_id == report_id


@pytest.mark.parametrize(
    ("supplier", "cpr", "said"),
    [
        ("birkelund", None, "no test citizen is agreed"),
        ("birkelund", "9999999999", "not of the form"),
        ("nobody", AGREED, "knows no supplier"),
    ],
)
async def test_a_test_report_needs_a_known_supplier_with_a_valid_test_citizen(
    operations: Operations, sql: Sql, supplier: str, cpr: str | None, said: str
) -> None:
    with pytest.raises(Refusal, match=said):
        await ops.send_test_report(operations, directory(cpr), supplier, BO)
    assert await sql.fetchval("SELECT count(*) FROM reports") == 0
    assert await operations.log.entries() == []
