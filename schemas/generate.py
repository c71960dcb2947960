"""Writes the JSON Schemas of all messages into `schemas/json/`, or checks that they match the models.

    python -m schemas.generate [--check]

One file for each request type, for answers, outcome events and lane messages, and for both report bodies. The
output is deterministic.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from schemas.answers import ANSWER_TYPE, Answer
from schemas.failure_reports import (
    CONTRACT_BODY,
    LANE_TYPE,
    WEBHOOK_BODY,
    ContractBody,
    LaneMessage,
    WebhookBody,
)
from schemas.outcome_events import OUTCOME_TYPE, OutcomeEvent
from schemas.requests import REQUESTS
from schemas.wire import Wire

DIRECTORY: Final = Path(__file__).parent / "json"

MESSAGES: Final[dict[str, type[Wire]]] = {
    **REQUESTS,
    ANSWER_TYPE: Answer,
    OUTCOME_TYPE: OutcomeEvent,
    LANE_TYPE: LaneMessage,
    CONTRACT_BODY: ContractBody,
    WEBHOOK_BODY: WebhookBody,
}
"""Every message by its AMQP type, and the two report bodies, sent over HTTP, by their names."""


def schema_of(type: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the bodies of one message type."""
    model = MESSAGES[type]
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:jobnet:message:{type}",
        **schema,
        "title": type,
        "description": f"{schema['description']} Unknown fields are ignored.",
    }


def expected_files() -> dict[str, str]:
    """File names and contents that the models give."""
    return {
        f"{type}.json": json.dumps(schema_of(type), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for type in MESSAGES
    }


def drifted(directory: Path = DIRECTORY) -> list[str]:
    """Names of the files that are missing, outdated or not needed any more."""
    found = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.json")}
    wanted = expected_files()
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def write(directory: Path = DIRECTORY) -> list[str]:
    """Write, replace and delete files until the directory is right; returns the names of those that changed."""
    changed, wanted = drifted(directory), expected_files()
    directory.mkdir(exist_ok=True)
    for name in changed:
        if name in wanted:
            (directory / name).write_text(wanted[name], encoding="utf-8")
        else:
            (directory / name).unlink()
    return changed


def main(arguments: list[str]) -> int:
    """Exit code 0: up to date or written; 1: `--check` found differences; 2: wrong argument."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m schemas.generate [--check]", file=sys.stderr)
        return 2
    names = drifted() if arguments else write()
    for name in names:
        print(f"{name} {'differs: run python -m schemas.generate' if arguments else 'written'}")
    return 1 if arguments and names else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
