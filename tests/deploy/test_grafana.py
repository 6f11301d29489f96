"""The dashboard: of a form that Grafana takes, and asking the data source that is provided with it."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from tests.deploy.watching import GRAFANA, dashboard, panels, read_yaml

COLUMNS = 24
TITLES = {
    "Places for uploads",
    "Places for downloads",
    "Refused for want of a place, by reason",
    "In flight",
    "Bytes in and out",
    "Time to take in a chunk",
    "Memory",
    "Store: failures",
    "Database: connections",
    "Cut for being slow",
    "Reaper",
}


def source() -> dict[str, Any]:
    (found,) = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert isinstance(found, dict)
    return found


def test_it_has_what_grafana_11_wants_of_a_dashboard() -> None:
    board = dashboard()
    assert board["schemaVersion"] >= 39
    assert board["uid"] == "gauzian"
    assert board["title"] == "GAUZIAN"
    assert board["id"] is None, "Grafana gives the number"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert {panel["type"] for panel in board["panels"]} <= {"row", "stat", "timeseries"}


def test_no_panel_lies_over_another_or_over_the_edge() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    for place in places:
        assert place["w"] >= 1
        assert place["h"] >= 1
        assert 0 <= place["x"] <= COLUMNS - place["w"], place
    for one, two in combinations(places, 2):
        beside = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        below = one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
        assert beside or below, (one, two)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_asks_the_provided_data_source(panel: dict[str, Any]) -> None:
    wanted = {"type": "prometheus", "uid": source()["uid"]}
    assert panel["datasource"] == wanted
    assert panel["targets"]
    letters = [target["refId"] for target in panel["targets"]]
    assert len(letters) == len(set(letters))
    for target in panel["targets"]:
        assert target["datasource"] == wanted
        assert target["expr"].strip()
        assert "instance=~" in target["expr"], "it obeys the choice of an instance"
    assert panel["fieldConfig"]["defaults"]["unit"]


def test_a_variable_asks_it_too() -> None:
    for variable in dashboard()["templating"]["list"]:
        assert variable["datasource"]["uid"] == source()["uid"]


def test_what_an_operator_looks_for_is_there() -> None:
    assert {panel["title"] for panel in panels()} >= TITLES


def test_windows_follow_the_scrape_interval() -> None:
    scrapes = read_yaml(GRAFANA.parent / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]
    assert source()["jsonData"]["timeInterval"] == scrapes


def test_the_provider_reads_a_directory_and_lets_nobody_change_what_is_in_it() -> None:
    (provider,) = read_yaml(GRAFANA / "provisioning" / "dashboards" / "gauzian.yml")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert provider["allowUiUpdates"] is False
