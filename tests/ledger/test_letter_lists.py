"""Lists of dead letters page by page, and groups with their trend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from broker.ledger.audit_log import Refusal
from broker.ledger.dead_letters.letter_model import Filter, PageCursor
from broker.ledger.operators.operations import Operations
from tests.ledger.dead import BO, dead_booking, dead_reports, operations_of
from tests.ledger.support import Sql, settings_for


@pytest.fixture
async def operations(dsn: str) -> AsyncIterator[Operations]:
    async with operations_of(settings_for(dsn)) as opened:
        yield opened


async def message(sql: Sql, request_id: UUID | None = None) -> UUID:
    letter_id = uuid4()
    await sql.execute(
        "INSERT INTO dead_messages (letter_id, source_id, queue, cause, cause_class, request_id, same_key, same_token)"
        " VALUES ($1, $1, 'jobnet.bookings.dead', 'invalid', 'message', $2, 't1', '\\x00')",
        letter_id,
        request_id,
    )
    return letter_id


async def every_page(operations: Operations, limit: int, wanted: Filter = Filter()) -> list[list[UUID]]:  # noqa: B008  frozen
    pages, after = [], None
    while True:
        page = await operations.letters.page(wanted, limit=limit, after=after)
        pages.append([letter.letter_id for letter in page.letters])
        if page.next is None:
            return pages
        after = PageCursor.read(str(page.next))


class TestPages:
    async def test_they_hold_every_letter_once_newest_first_whatever_its_kind(
        self, operations: Operations, sql: Sql
    ) -> None:
        ids = set(await dead_reports(sql, 7))
        ids |= {await dead_booking(sql), await dead_booking(sql), await message(sql)}
        pages = await every_page(operations, 3)
        assert [len(page) for page in pages] == [3, 3, 3, 1]
        told = [letter_id for page in pages for letter_id in page]
        assert (set(told), len(told)) == (ids, len(ids))
        assert told == [letter.letter_id for letter in await operations.letters.listed(Filter())]

    async def test_letters_that_die_meanwhile_shift_nothing(self, operations: Operations, sql: Sql) -> None:
        ids = set(await dead_reports(sql, 6))
        first = await operations.letters.page(Filter(), limit=3)
        await dead_reports(sql, 4)
        second = await operations.letters.page(Filter(), limit=3, after=first.next)
        told = {letter.letter_id for letter in (*first.letters, *second.letters)}
        assert (told, second.next) == (ids, None)

    async def test_letters_of_one_very_moment_are_all_told(self, operations: Operations, sql: Sql) -> None:
        ids = set(await dead_reports(sql, 10))
        await sql.execute("UPDATE reports SET last_failed_at = date_trunc('day', now())")
        told = [letter_id for page in await every_page(operations, 3) for letter_id in page]
        assert (set(told), len(told)) == (ids, 10)

    async def test_a_filter_goes_along(self, operations: Operations, sql: Sql) -> None:
        await dead_reports(sql, 5, supplier="sydsoft")
        ids = set(await dead_reports(sql, 5))
        pages = await every_page(operations, 2, Filter(supplier="nordsoft", error_code=4))
        assert ({letter_id for page in pages for letter_id in page}, len(pages)) == (ids, 3)

    async def test_what_was_put_aside_has_pages_too(self, operations: Operations, sql: Sql) -> None:
        await dead_reports(sql, 5)
        await operations.letters.discard(Filter(supplier="nordsoft"), BO)
        page = await operations.letters.page(Filter(), limit=2, discarded=True)
        assert (len(page.letters), page.next is None) == (2, False)

    @pytest.mark.parametrize(
        "text", ["", "x", "2026-01-01T00:00:00+00:00", "_", f"2026-01-01T00:00:00_{UUID(int=1)}"]
    )
    def test_a_place_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(Refusal):
            PageCursor.read(text)

    async def test_any_id_finds_what_is_dead_of_it(self, operations: Operations, sql: Sql) -> None:
        [report_id], [other] = await dead_reports(sql), await dead_reports(sql)
        request_id, joined = uuid4(), uuid4()
        await sql.execute(
            "UPDATE reports SET request_id = $2, joins = $3 WHERE report_id = $1",
            report_id,
            request_id,
            joined,
        )
        letter_id = await message(sql, request_id)
        for about, ids in (
            (report_id, {report_id}),
            (request_id, {report_id, letter_id}),
            (joined, {report_id}),
            (letter_id, {letter_id}),
            (other, {other}),
            (uuid4(), set()),
        ):
            found = await operations.letters.listed(Filter(about=about))
            assert {letter.letter_id for letter in found} == ids


class TestGroups:
    async def test_they_tell_how_many_came_in_each_of_the_last_hours(
        self, operations: Operations, sql: Sql
    ) -> None:
        for hours, count in ((0, 1), (1, 2), (23, 3), (50, 4)):
            ids = await dead_reports(sql, count)
            await sql.execute(
                "UPDATE reports SET last_failed_at = now() - $2 * interval '1 hour' - interval '1 minute',"
                " first_failed_at = now() - interval '9 days' WHERE report_id = ANY($1)",
                ids,
                hours,
            )
        [group] = await operations.letters.groups(Filter())
        assert (group.count, group.trend) == (10, (3, *(0,) * 21, 2, 1))
        assert (group.last_seen_at - group.first_seen_at).days == 8

    async def test_kinds_are_told_apart(self, operations: Operations, sql: Sql) -> None:
        await dead_reports(sql)
        await dead_booking(sql)
        await message(sql)
        groups = await operations.letters.groups(Filter())
        assert sorted((group.kind, group.count) for group in groups) == [
            ("booking", 1),
            ("message", 1),
            ("report", 1),
        ]
