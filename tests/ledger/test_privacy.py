"""No CPR number stands in clear in any column of any table (docs/privacy.md#cpr)."""

from __future__ import annotations

from broker.ledger.ledger import Ledger
from schemas.codes import Status
from tests.ledger.report_support import delivering, failed, report_on
from tests.ledger.support import ANN, BEN, Sql, ask, claimed, ending, left_uncertain


async def dump(sql: Sql) -> str:
    """Every column of every table, bytes both raw and in hex."""
    tables = await sql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = [dict(row) for table in tables for row in await sql.fetch(f'SELECT * FROM "{table[0]}"')]  # noqa: S608
    assert rows
    hexed = [value.hex() for row in rows for value in row.values() if isinstance(value, bytes)]
    return repr(rows) + repr(hexed)


def forms(number: str) -> set[str]:
    """The number as text, in hex, and in the common spelling with a hyphen."""
    return {number, number.encode().hex(), f"{number[:6]}-{number[6:]}"}


async def test_no_cpr_number_stands_in_clear_in_any_column(ledger: Ledger, sql: Sql) -> None:
    told = ending(Status.FAILED, f'{{"cpr":"{ANN}"}}'.encode())
    await ledger.requests.settle(await claimed(ledger, ask(ANN)), told)
    await ledger.requests.record(ask(ANN), told)
    asked = ask(ANN)
    report = report_on(asked, merge=f'["{ANN}"]'.encode())
    await ledger.requests.settle(await claimed(ledger, asked), failed(report))
    delivery = await delivering(ledger, report.report_id)
    await left_uncertain(ledger, ask(ANN))
    _running = await claimed(ledger, ask(BEN))
    everything = await dump(sql)
    assert not {form for number in (ANN, BEN) for form in forms(number) if form in everything}
    assert ANN.encode() in delivery.content


async def test_personal_data_in_memory_is_in_no_repr(ledger: Ledger) -> None:
    wanted = ask(ANN)
    claim = await claimed(ledger, wanted)
    printed = repr((wanted, claim, ending(answer=ANN.encode()), ledger.requests._claiming))
    assert ANN not in printed
