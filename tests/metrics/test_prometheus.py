"""What Prometheus and Grafana are given: promtool reads it, and it names no metric that is not
there.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "corral.json"
METRIC = re.compile(r"\b(?:bullmq|corral)_\w+")


def run(*command: str | Path, given: bytes = b"") -> None:
    """Run promtool; what it says is shown where it is not content."""
    ended = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, (ended.stdout + ended.stderr).decode()
    assert ended.stderr == b"", "no warning, either"


def samples(body: bytes) -> set[str]:
    """The names of all samples, `…_bucket` and the like included."""
    return set(re.findall(r"^([a-z]\w+)[ {]", body.decode(), re.MULTILINE))


def documented() -> dict[str, tuple[str, str]]:
    """Of each metric of docs/metrics.md its type and its labels."""
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)
    return {name: (kind, ", ".join(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def counted_by_plugins() -> set[str]:
    """What our plugins count, by their READMEs; each plugin's own tests compare that."""
    readmes = (ROOT / "plugins").glob("*/README.md")
    rows = [
        re.findall(r"^\| `(\w+_total)` \|", page.read_text("utf-8"), re.MULTILINE)
        for page in readmes
    ]
    return {name for names in rows for name in names}


def served(body: bytes) -> dict[str, tuple[str, str]]:
    """The same, of what is served; `le` belongs to every histogram."""
    text = body.decode()
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    found: dict[str, tuple[str, str]] = {}
    for name, kind in kinds.items():
        suffix = "_count" if kind == "histogram" else ""
        sample = re.search(rf"^{name}{suffix}(?:{{(.*)}})? ", text, re.MULTILINE)
        assert sample, f"{name} has no sample"
        found[name] = (kind, ", ".join(re.findall(r"(\w+)=", sample[1] or "")))
    return found


@pytest.mark.asyncio
async def test_promtool_finds_nothing_wrong_with_what_is_served(
    promtool: str, scraped: bytes
) -> None:
    run(promtool, "check", "metrics", given=scraped)


def test_promtool_reads_the_rules_and_the_example_configuration(promtool: str) -> None:
    run(promtool, "check", "rules", RULES)
    run(promtool, "check", "config", RULES.with_name("prometheus.yml"))


def test_every_alert_fires_when_it_should(promtool: str) -> None:
    run(promtool, "test", "rules", RULES.with_name("alerts_test.yml"))


def test_every_alert_has_a_test_in_which_it_fires_and_says_what_to_do() -> None:
    alerts = RULES.read_text("utf-8")
    tests = RULES.with_name("alerts_test.yml").read_text("utf-8")
    names = re.findall(r"- alert: (\w+)", alerts)
    expected = re.findall(
        r'alertname="([^"]+)"|alertname=~"([^"]+)"|alertname: (\w+)\n\s+exp_alerts:', tests
    )
    fired = {name for found in expected for names in found for name in names.split("|") if name}
    assert fired == set(names)
    for field in ("severity", "summary", "description", "runbook"):
        assert len(re.findall(rf"^ +{field}: ", alerts, re.MULTILINE)) == len(names) > 5, field
    assert {"CorralJobsFailed", "CorralJobsWaiting"} <= set(names), (
        "the two that every installation needs"
    )


def test_the_commands_of_the_runbooks_exist() -> None:
    from corral.cli import cli

    named = set(re.findall(r"`corral\s+(\w+)", RULES.read_text("utf-8")))
    assert "retry" in named
    assert named <= set(cli.commands)


@pytest.mark.asyncio
async def test_the_page_names_what_is_served_and_nothing_else(scraped: bytes) -> None:
    assert documented() == served(scraped)


@pytest.mark.asyncio
async def test_rules_and_dashboard_name_only_metrics_that_are_served(scraped: bytes) -> None:
    families = set(served(scraped))
    there = samples(scraped) | families | counted_by_plugins()
    for path in (RULES, RULES.with_name("alerts_test.yml")):
        assert set(METRIC.findall(path.read_text("utf-8"))) <= there, path.name
    used = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert used <= there
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in used} == families, (
        "and each of them is drawn"
    )


def test_every_expression_of_the_dashboard_can_be_read(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:{number}", "expr": expression}
        for number, expression in enumerate(
            re.sub(r"\$__\w+", "5m", each) for each in expressions()
        )
    ]
    assert len(rules) > 15
    written = tmp_path / "dashboard.yml"
    written.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), "utf-8")
    run(promtool, "check", "rules", written)


def test_no_two_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def expressions() -> Iterator[str]:
    """Every query of the dashboard."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        if isinstance(variable["query"], dict):
            yield re.sub(r"label_values\((\w+), \w+\)", r"\1", variable["query"]["query"])
