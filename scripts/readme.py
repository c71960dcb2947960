"""README's figures, from docs/benchmarks.json and docs/reliability.json; `make bench` and `make faults` renew them.

A test compares README with the output of this module.
"""

from __future__ import annotations

import json
from typing import Any

from scripts.processes import ROOT

README = ROOT / "README.md"
BEGIN = "<!-- figures: made by `make bench` and `make faults`, not by hand -->"
END = "<!-- /figures -->"
SORTS = ("lost", "duplicated_effects", "late", "leaked", "untrue")


def renew() -> None:
    """Write the figures of the documents into README."""
    README.write_text(renewed(README.read_text()))


def renewed(text: str) -> str:
    """README's text with the figures of the documents. Raises ValueError without the marks around their place."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README has no place for figures: {BEGIN} … {END}")
    parts = [part for part in (_speed(_read("benchmarks")), _safety(_read("reliability"))) if part]
    return before + "\n\n".join([BEGIN, *parts, END]) + after


def _read(name: str) -> dict[str, Any]:
    file = ROOT / "docs" / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _speed(found: dict[str, Any]) -> str:
    if "contestants" not in found:
        return ""
    rows = [
        f"| {name} | {row['messages_per_second']:.0f} | {row['cpu_us_per_message']:.0f} | {row['p50_ms']:.1f} |"
        f" {row['p99_ms']:.1f} | {_beside(found, name)} |"
        for name, row in found["contestants"].items()
    ]
    head = "| one core, the same job | bookings/s | CPU µs each | p50 ms | p99 ms | the broker's rate to it |"
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|", *rows])


def _beside(found: dict[str, Any], name: str) -> str:
    ratio = found.get("ratios", {}).get(name)
    return f"{ratio['rate']:.2f}" if ratio else ""


def _safety(found: dict[str, Any]) -> str:
    if not found:
        return ""
    counts = ", ".join(f"{sort.replace('_', ' ')} {found[sort]}" for sort in SORTS)
    return f"{found['seeds']} seeds of faults alone and in pairs, {found['requests']} requests: {counts}."


if __name__ == "__main__":
    renew()
