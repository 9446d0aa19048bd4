"""deploy/grafana and deploy/prometheus: what Grafana reads, over metrics that there are."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

from raysynth.metrics import DECLARED

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/raysynth.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
PANELS = DASHBOARD["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]
OURS = {metric.exported: metric for metric in DECLARED}
RAYS_TAGS = {"SessionName", "NodeAddress", "instance", "GpuIndex", "GpuDeviceName", "WorkerId"}
COLUMNS = 24


def rays() -> set[str]:
    """Names of the metrics of nodes at a Ray's endpoint, as this Ray declares them."""
    agent = pytest.importorskip("ray.dashboard.modules.reporter.reporter_agent")
    return {f"ray_{name}" for name in agent.METRICS_GAUGES}


def expressions() -> list[str]:
    """All PromQL: of the panels, the lists at the top, the alerts."""
    found = [target["expr"] for panel in CHARTS for target in panel["targets"]]
    found += [
        each["definition"] for each in DASHBOARD["templating"]["list"] if "definition" in each
    ]
    return [*found, *(rule["expr"] for group in ALERTS["groups"] for rule in group["rules"])]


def test_every_metric_that_is_asked_for_is_there():
    asked = {name for each in expressions() for name in re.findall(r"\bray_\w+", each)}
    assert asked <= set(OURS) | rays(), asked - set(OURS) - rays()
    assert set(OURS) <= asked  # and none is told for nobody


def test_every_label_that_is_asked_for_is_a_tag():
    for panel in CHARTS:
        for target in panel["targets"]:
            names = re.findall(r"\bray_\w+", target["expr"])
            known = RAYS_TAGS.union(*(OURS[name].tags for name in names if name in OURS))
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            for listed in re.findall(r"by \(([^)]*)\)", target["expr"]):
                labels |= {label.strip() for label in listed.split(",")}
            labels |= set(re.findall(r"(\w+)=~", target["expr"]))
            assert labels <= known, (panel["title"], labels - known)
            assert target["expr"].count("(") == target["expr"].count(")")


def test_panels_are_told_apart_and_lie_beside_each_other():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["w"] > 0 and place["h"] > 0 and place["x"] >= 0 and place["y"] >= 0
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in itertools.combinations([panel["gridPos"] for panel in PANELS], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_grafana_finds_what_it_reads():
    """The fields without which an import asks or fails; the datasource is chosen, not fixed."""
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= DASHBOARD.keys()
    assert DASHBOARD["schemaVersion"] >= 36 and "id" not in DASHBOARD
    names = [each["name"] for each in DASHBOARD["templating"]["list"]]
    assert names[0] == "datasource" and DASHBOARD["templating"]["list"][0]["query"] == "prometheus"
    used = {name for each in expressions() for name in re.findall(r"\$(\w+)", each)}
    assert used == set(names) - {"datasource"}
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in CHARTS:
        assert panel["type"] in ("timeseries", "stat", "bargauge")
        assert panel["datasource"] == source and panel["targets"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        assert all(target["datasource"] == source for target in panel["targets"])


def test_prometheus_reads_rays_own_list_of_nodes():
    constants = pytest.importorskip("ray._private.ray_constants")
    (scrape,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    (file,) = scrape["file_sd_configs"][0]["files"]
    assert file == f"/tmp/ray/{constants.PROMETHEUS_SERVICE_DISCOVERY_FILE}"
