"""The scrape config, the recorded series and the alerts: Prometheus' own tool takes them, and each alert fires when it
should and not otherwise.
"""

from __future__ import annotations

import subprocess

import pytest

from tests.deploy.debian import require_program
from tests.deploy.watching import PROMETHEUS, alerts, queries_in, read_yaml, rules, runbook_sections

FOUNDING = "rate(gauzian_rejected_uploads[5m]) > 10"


@pytest.mark.parametrize(
    "command",
    ["check config prometheus.yml", "check rules --lint-fatal rules.yml", "test rules rules_test.yml"],
)
def test_promtool_finds_nothing_to_complain_about(command: str) -> None:
    promtool = require_program("promtool", package="prometheus")
    found = subprocess.run(
        [promtool, *command.split()], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("alert", [rule["alert"] for rule in alerts()])
def test_each_alert_has_a_series_on_which_it_fires_and_one_on_which_it_does_not(alert: str) -> None:
    fires, silent = [], []
    for group in read_yaml(PROMETHEUS / "rules_test.yml")["tests"]:
        expected = [case["exp_alerts"] for case in group["alert_rule_test"] if case["alertname"] == alert]
        if group["name"].startswith(f"{alert} fires: "):
            fires.append(any(expected))
        elif group["name"].startswith(f"{alert} does not: "):
            silent.append(not any(expected))
    assert fires
    assert all(fires)
    assert silent
    assert all(silent)


def test_a_test_of_an_alert_feeds_every_metric_that_the_alert_asks_for() -> None:
    """A series with a misspelt name would let the alert stay silent for the wrong reason."""
    known = {group["name"]: group for group in read_yaml(PROMETHEUS / "rules_test.yml")["tests"]}
    for name, group in known.items():
        alert = group["alert_rule_test"][0]["alertname"]
        assert name.startswith((f"{alert} fires: ", f"{alert} does not: ")), name
        expression = next(rule["expr"] for rule in alerts() if rule["alert"] == alert)
        for rule in rules():
            if "record" in rule:
                expression = expression.replace(rule["record"], rule["expr"])
        fed = {item["series"].split("{")[0] for item in group["input_series"]}
        assert all(metric in expression for metric in fed), name


def test_the_founding_alert_is_there_to_the_letter() -> None:
    founding = next(rule for rule in alerts() if rule["alert"] == "TooManyRejectedUploads")
    assert founding["expr"] == FOUNDING
    assert "for" not in founding


def test_each_alert_says_how_bad_it_is_what_has_happened_and_where_to_read_on() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["runbook"] == f"deploy/README.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("alert", [rule["alert"] for rule in alerts()])
def test_the_runbook_says_what_an_alert_means_what_to_look_at_and_what_to_do(alert: str) -> None:
    section = runbook_sections()[alert]
    severity = next(rule["labels"]["severity"] for rule in alerts() if rule["alert"] == alert)
    assert section.strip().startswith(f"*{severity}.* ")
    assert queries_in(section), "nothing to look at"
    meaning, doing = section.split("```promql")[0], section.rsplit("```", 1)[1]
    assert len(meaning) > 60
    assert len(doing) > 60


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    assert runbook_sections().keys() == {rule["alert"] for rule in alerts()}


def test_the_service_is_scraped_every_15_seconds_and_judged_as_often() -> None:
    config = read_yaml(PROMETHEUS / "prometheus.yml")
    assert config["global"] == {"scrape_interval": "15s", "evaluation_interval": "15s"}
    assert config["rule_files"] == ["rules.yml"]
    assert [job["job_name"] for job in config["scrape_configs"]] == ["gauzian"]


def test_nothing_is_missed_where_it_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install -y --no-install-recommends no-package"):
        require_program("no-such-program", package="no-package")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not there"):
        require_program("no-such-program", package="no-package")
