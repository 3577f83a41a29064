"""The dashboard and the alerts: what they name is what a server tells, and they say what they should."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import tiny_guard
import yaml
from supervised import Served

from verdictree import Conversation, Message
from verdictree.releases.calibration import Calibrator, Outcome
from verdictree.releases.score_counts import ScoreCounts
from verdictree.v1 import guard_pb2 as pb
from verdictree.v1 import guard_pb2_grpc, messages
from verdictree_gateway.observing.drift import NUM_LEAST, NUM_REFERENCE

FOLDER = Path(__file__).resolve().parents[2] / "observability"
DASHBOARD = json.loads((FOLDER / "grafana" / "verdictree.json").read_text(encoding="utf-8"))
ALERTS = FOLDER / "prometheus" / "alerts.yml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
GIVEN_BY_PROMETHEUS = {"instance", "job"}
_SELECTOR = re.compile(r"\b((?:verdictree|nv)_\w+)(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")


def expressions() -> dict[str, str]:
    """Every expression, by where it stands."""
    found = {f"{panel['title']} {one['refId']}": one["expr"] for panel in PANELS for one in panel["targets"]}
    assert len(found) == sum(len(panel["targets"]) for panel in PANELS)
    return {**found, **{rule["alert"]: rule["expr"] for rule in RULES}}


def labels_by_metric() -> dict[str, set[str]]:
    """Which labels are taken for granted: those selected by, and those grouped by."""
    found: dict[str, set[str]] = defaultdict(set)
    for expression in expressions().values():
        grouped = {name.strip() for names in _GROUPED.findall(expression) for name in names.split(",")}
        for metric, selector in _SELECTOR.findall(expression):
            found[metric] |= set(re.findall(r"(\w+)\s*(?:=|!)", selector)) | grouped
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
            found[metric].add(label)
    return {metric: labels - GIVEN_BY_PROMETHEUS for metric, labels in found.items()}


def labels_told(text: str) -> dict[str, set[str]]:
    """The samples of a page of metrics, by name: which labels they have."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, labels in re.findall(r"^(\w+)(\{.*\})? ", text, re.MULTILINE):
        found[name] |= set(re.findall(r'(\w+)="', labels))
    return found


async def judged(address: str, count: int) -> None:
    """Ask so many questions over a stream."""

    async def requests():
        for number in range(count):
            role = "user" if number % 50 else "assistant"
            turns = (Message("user", f"what about {number % 7}?"), Message(role, "and why"))
            yield pb.ClassifyManyRequest(
                id=str(number), request=messages.request(Conversation(turns[role == "user" :]))
            )

    async with grpc.aio.insecure_channel(address) as channel:
        async for _ in guard_pb2_grpc.GuardStub(channel).ClassifyMany(requests()):
            pass


@pytest.fixture
def calibrated(release, tmp_path) -> Iterator[Served]:
    """A server of the same release, calibrated on rows that score unlike its traffic."""
    repository = shutil.copytree(release, tmp_path / "models")
    counts = ScoreCounts.of([0.995] * 50, [True] * 20 + [False] * 30)
    codes = ("unsafe", "S1", "S2", "S10")
    outcomes = [Outcome(code, Calibrator(), 0.9, "r", 20, 30, "", counts) for code in codes]
    tiny_guard.calibrate(repository, "tiny", outcomes)
    server = Served(repository, "--self-check-seconds", "1").wait_ready()
    yield server
    server.end()


@pytest.mark.server
def test_every_metric_that_is_shown_or_alarms_is_told(calibrated, post):
    """A panel of a metric that was renamed is empty, and looks like peace; an alert on one never rings."""
    server = calibrated
    asyncio.run(judged(server.said["grpc"], NUM_REFERENCE + 2 * NUM_LEAST))
    post(server, "/v1/classify", b"{")
    time.sleep(2.5)
    with urllib.request.urlopen(f"http://{server.said['metrics']}/metrics", timeout=10) as answer:
        text = server.get("/metrics")[1] + answer.read().decode()
    told = labels_told(text)
    for metric, labels in labels_by_metric().items():
        assert metric in told, metric
        assert labels <= told[metric], (metric, labels - told[metric])
    pattern = r'^verdictree_drift_psi{category="(\w+)",.*reference="%s",.*role="user".*} (\S+)$'
    first, labelled = (dict(re.findall(pattern % name, text, re.MULTILINE)) for name in ("first", "calibration"))
    assert set(first) == set(labelled) == {"unsafe", "S1", "S2", "S10"}
    assert max(map(float, first.values())) < 0.1 and min(map(float, labelled.values())) > 0.25


def test_panels_do_not_overlap():
    """Two panels in one place: only the upper one is seen."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_every_alert_has_a_test():
    """A rule that nobody has seen ring."""
    tests = yaml.safe_load((FOLDER / "prometheus" / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    rings = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert rings == silent == {rule["alert"] for rule in RULES}


def promtool(*arguments: str | Path) -> None:
    fetched = FOLDER.parent / ".prometheus" / "usr" / "bin" / "promtool"
    program = str(fetched) if fetched.exists() else shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: `make .prometheus/.fetched` fetches it, and needs apt")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_ring_when_they_should():
    """Prometheus' own evaluation of the rules on made-up series."""
    promtool("check", "rules", ALERTS)
    promtool("test", "rules", FOLDER / "prometheus" / "alerts_test.yml")


def test_the_dashboard_speaks_promql(tmp_path):
    """A panel with a syntax error says so only to who opens it."""
    rules = []
    for number, expression in enumerate(expressions().values()):
        plain = expression.replace("$__rate_interval", "5m")
        rules.append({"record": f"panel_{number}", "expr": re.sub(r"\$\w+", ".*", plain)})
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", path)
