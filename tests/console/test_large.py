"""Response times of the pages with a hundred thousand dead letters.

The limit is generous, so that the test passes on a busy machine. On an idle machine no page takes half a second, even
with a million requests. The query plans behind this are tested in tests/ledger/test_plans.py.
"""

from __future__ import annotations

import re
import time
from html import unescape

import pytest

from tests.console.browser import Browser
from tests.ledger.filled import fill
from tests.ledger.support import Sql

LETTER = re.compile(r'<a href="/dead/([0-9a-f-]{36})">')
OLDER = re.compile(r'<a href="([^"]+)" rel="next">')
GROUP = re.compile(r'<a href="(/dead\?fingerprint=[^"]+)">')
GENEROUS_S = 5.0


@pytest.mark.timeout(240)
async def test_every_page_is_fast(browser: Browser, sql: Sql) -> None:
    browser.log_in("viewer", "operator", "privacy", "admin")
    await fill(sql, requests=100_000, letters=100_000, delivered=20_000, waiting=5_000)
    page = await browser.get("/dead")
    letter, older, group = (pattern.search(page.text) for pattern in (LETTER, OLDER, GROUP))
    assert letter
    assert older
    assert group
    for path in (
        *("/", "/?range=14d", "/events", "/suppliers", "/suppliers/supplier-1", "/log", "/replays"),
        *("/dead", unescape(older[1]), unescape(group[1]), "/dead?supplier=supplier-1&cause=rejected"),
        *(
            "/dead?jobcenter_code=99999",
            f"/dead?about={letter[1]}",
            f"/dead/{letter[1]}",
            f"/trace/{letter[1]}",
        ),
        *("/dead/discard?supplier=supplier-1", "/replays/new?cause=exhausted"),
    ):
        began = time.monotonic()
        assert (await browser.get(path)).status == 200, path
        assert time.monotonic() - began < GENEROUS_S, path
