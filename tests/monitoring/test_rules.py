"""The alert rules: Prometheus reads them, each fires when it should, and each has its section in the runbook."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from broker.cli.main import main
from tests.monitoring.support import (
    RULES,
    RULES_TEST,
    RUNBOOK,
    Alert,
    alerts,
    asked_for,
    exported,
    run_promtool,
)


@pytest.mark.integration
def test_prometheus_reads_the_rules_and_the_example_configuration() -> None:
    run_promtool("check", "rules", RULES.name)
    run_promtool("check", "config", "prometheus.yml")


@pytest.mark.timeout(240)
@pytest.mark.integration
def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    assert "SUCCESS" in run_promtool("test", "rules", RULES_TEST.name)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_each_alert_is_tested_and_has_its_section_in_the_runbook(alert: Alert) -> None:
    tests = RULES_TEST.read_text()
    assert f'alertname="{alert.name}"' in tests, "no test in rules_test.yml"
    fires = re.search(
        rf'alertname="{alert.name}", alertstate="firing".*\n\s+eval_time: .*\n\s+exp_samples:\n', tests
    )
    assert fires, "no test in which it fires"
    assert alert.severity in ("page", "ticket")
    assert alert.runbook == f"docs/operations.md#{alert.name.lower()}"
    section = re.search(rf"^### {alert.name}\n(.+?)(?=^##)", RUNBOOK.read_text() + "\n##", re.M | re.S)
    assert section, f"docs/operations.md has no section {alert.name}"
    for word in ("Means", "Look", "Do"):
        assert f"**{word}.**" in section[1], f"the section of {alert.name} does not say {word}"


def test_the_runbook_has_no_section_for_a_missing_alert() -> None:
    found = re.findall(r"^### (Jobnet\w+)$", RUNBOOK.read_text(), re.M)
    assert sorted(found) == sorted(alert.name for alert in alerts())


def commands_of_the_runbook() -> list[str]:
    """The commands of the broker that the runbook mentions."""
    found = re.findall(r"`(?:jobnet-broker )?([a-z]+ ?[^`]*)`", RUNBOOK.read_text())
    return sorted({words for words in found if words.split()[0] in main.commands and "_" not in words})


@pytest.mark.parametrize("words", commands_of_the_runbook())
def test_every_command_of_the_runbook_exists_with_its_options(words: str) -> None:
    first, *rest = shlex.split(words)
    command = main.commands[first]
    if isinstance(command, click.Group):
        command = command.commands[rest[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_rules_and_dashboard_use_only_exported_metrics() -> None:
    assert asked_for() <= exported()
