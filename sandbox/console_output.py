"""The output of `make run`: a progress bar on a terminal, plain lines otherwise, and the tables at the end."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from sandbox.day_sender import LineResult
from sandbox.report_check import ReportResult

LINE_EVERY = 50
console = Console(highlight=False)


def print_line(text: str) -> None:
    """Print text without markup."""
    console.print(text, markup=False, soft_wrap=True)


class Progress:
    """Shows how many of the requests have ended."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._ended = 0
        self._bar = Bar(
            TextColumn("  the sample day"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("day", total=total)

    def __enter__(self) -> Self:
        print_line(f"  sending the sample day: {self._total} requests")
        if console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if console.is_terminal:
            self._bar.stop()

    def ended(self, result: LineResult) -> None:
        """Count one more request as ended."""
        self._ended += 1
        if console.is_terminal:
            self._bar.advance(self._task)
        elif self._ended % LINE_EVERY == 0 or self._ended == self._total:
            print_line(f"  {self._ended} of {self._total} have ended")


def print_reports(results: list[ReportResult]) -> None:
    """Print the ends of the failure reports by supplier, and the causes of dead ones."""
    rows = Counter((p.supplier or "none", p.end, p.cause or "", not p.problems) for p in results)
    table = Table("supplier", "end", "cause", "reports", "as expected", title="Failure reports")
    for supplier, end, cause in sorted({row[:3] for row in rows}):
        good, bad = rows[supplier, end, cause, True], rows[supplier, end, cause, False]
        table.add_row(supplier, end, cause, str(good + bad), str(good), style="bold red" if bad else "")
    console.print(table)


def print_requests(results: list[LineResult]) -> None:
    """Print the ends of the requests by type."""
    counts: Counter[tuple[str, str, bool]] = Counter((m.line.type, m.status, not m.problems) for m in results)
    table = Table("type", "end", "requests", "as expected", title="The sample day")
    for kind, status in sorted({(type, status) for type, status, _ in counts}):
        good, bad = counts[kind, status, True], counts[kind, status, False]
        table.add_row(kind, status, str(good + bad), str(good), style="bold red" if bad else "")
    console.print(table)
