"""The JSON Schemas in the repository match the models, accept the same messages, and stand alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from schemas.answers import Answer
from schemas.codes import ErrorCode, Reason
from schemas.generate import DIRECTORY, MESSAGES, drifted, main, schema_of, write
from schemas.outcome_events import Outcome, OutcomeEvent
from schemas.requests import REQUESTS
from schemas.wire import FieldProblem
from tests.schemas.checker import accepts
from tests.schemas.samples import BOOK, CPR, NIL, NOW, RESULTS, SAMPLES, body, problems, read


def stored(type: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((DIRECTORY / f"{type}.json").read_text(encoding="utf-8"))
    return schema


def test_the_schemas_in_the_repository_are_those_of_the_models() -> None:
    assert drifted() == [], "run python -m schemas.generate"


def test_drift_is_seen_and_repaired(tmp_path: Path) -> None:
    # Given a directory with everything right but one stale and one left-over file
    write(tmp_path)
    (tmp_path / "answer.v1.json").write_text("{}")
    (tmp_path / "booking.old.v1.json").write_text("{}")

    # Then both are named, and writing repairs both
    assert drifted(tmp_path) == ["answer.v1.json", "booking.old.v1.json"]
    assert write(tmp_path) == ["answer.v1.json", "booking.old.v1.json"]
    assert drifted(tmp_path) == []


def test_the_command_has_honest_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    assert main(["--chekc"]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("type", sorted(MESSAGES))
def test_every_schema_and_every_field_of_it_is_explained(type: str) -> None:
    schema = schema_of(type)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    parts = [schema, *schema.get("$defs", {}).values()]
    for part in (each for each in parts if "properties" in each):
        assert part["title"]
        assert part["description"]
        for name, field in part["properties"].items():
            assert field.get("description"), f"{part['title']}.{name}"


@pytest.mark.parametrize("type", sorted(REQUESTS))
def test_a_schema_accepts_what_the_model_accepts(type: str) -> None:
    sample, schema = SAMPLES[type], stored(type)
    bare = {name: sample[name] for name in schema["required"]}
    forbidden = {"moedetilbudId", "indkaldelseId"} - set(sample)
    for fields in (
        sample,
        bare,
        {**sample, "nyt": 1},
        {**sample, "kontaktgruppe": None, "deadline": None},
        {**sample, **dict.fromkeys(forbidden)},
    ):
        assert read(type, body(fields))
        assert accepts(schema, fields)


@pytest.mark.parametrize("type", sorted(REQUESTS))
def test_a_schema_refuses_a_missing_or_foreign_field_as_the_model_does(type: str) -> None:
    sample, schema = SAMPLES[type], stored(type)
    wrong = [{key: value for key, value in sample.items() if key != name} for name in schema["required"]]
    wrong += [{**sample, name: [1]} for name in sample]
    wrong += [{**sample, "requestId": NIL}]
    if type.startswith("booking."):
        wrong += [{**sample, "moedetilbudId": CPR, "indkaldelseId": CPR}]
    for fields in wrong:
        assert problems(type, body(fields))
        assert not accepts(schema, fields)


def test_the_answers_schema_accepts_every_answer() -> None:
    answers = [
        *(Answer.done(BOOK, result, now=NOW) for result, _ in RESULTS),
        *(Answer.failed(BOOK, code, now=NOW) for code in ErrorCode),
        *(Answer.refused(None, None, reason, now=NOW) for reason in Reason),
        Answer.refused(None, None, Reason.INVALID, (FieldProblem(field="a", problem="b"),), now=NOW),
        Answer.expired(BOOK, now=NOW),
        Answer.uncertain(BOOK, now=NOW),
    ]
    schema = stored("answer.v1")
    assert all(accepts(schema, json.loads(answer.to_json())) for answer in answers)
    assert not accepts(schema, {"status": "maybe", "answeredAt": "2026-03-02T12:00:00Z"})


def test_the_outcomes_schema_accepts_every_outcome() -> None:
    events = [OutcomeEvent(outcome=outcome, occurred_at=NOW) for outcome in Outcome]
    assert all(accepts(stored("outcome.v1"), json.loads(event.to_json())) for event in events)


def test_no_schema_holds_anything_like_a_cpr_number() -> None:
    assert not [path for path in DIRECTORY.glob("*.json") if re.search(r"[0-9]{10}", path.read_text())]


INTERNAL = re.compile(
    r"\b([A-Z]{6,}\b|ADR|adr/|docs/|R[0-9]+\b|[Rr]elease note|[Rr]ules? [0-9])|\w\.(md|py)\b"
)


@pytest.mark.parametrize("type", sorted(MESSAGES))
def test_no_text_of_a_schema_names_a_document_or_a_module_of_this_repository(type: str) -> None:
    assert not [text for text in texts_of(schema_of(type)) if INTERNAL.search(text)]


def texts_of(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [text for each in schema for text in texts_of(each)]
    if not isinstance(schema, dict):
        return []
    own = [text for key in ("title", "description") if isinstance(text := schema.get(key), str)]
    return own + [text for each in schema.values() for text in texts_of(each)]
