"""The demo from end to end, as a user runs it: agents, rounds, scheduler, curtailment, report, a clean end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from powerhall.plan.plan import read_plan
from powerhall.store import Query, Select, open_store
from powerhall_optimizer.verify.plan import verify_plan

pytestmark = pytest.mark.slow

COMMAND = (str(Path(sys.executable).with_name("powerhall-twin")), "demo")


def left_behind(out: Path) -> list[str]:
    """Return the processes that still carry the demo's folder in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(out) in words and process.pid != os.getpid():
            found.append(words)
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo of half an hour: folder, outcome and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    (out / "keep").mkdir(parents=True)
    (out / "keep" / "mine.txt").write_text("not the demo's", encoding="utf-8")
    args = ("--out", str(out), "--minutes", "30", "--speedup", "5000", "--seed", "3")
    done = subprocess.run((*COMMAND, *args), capture_output=True, text=True, timeout=200, check=False)
    return out, done


def test_the_demo_holds_every_budget_and_reports_it(demo):
    out, done = demo
    assert done.returncode == 0, done.stderr + done.stdout
    assert "every budget held at every sample" in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["ok"]
    assert summary["breaches"] == 0
    assert (summary["halls"], summary["racks"], summary["nodes"], summary["gpus"]) == (3, 12, 96, 768)
    assert summary["samples"] >= 30
    assert summary["peak_power_w"] <= summary["budget_w"]
    assert summary["curtailed_s"] > 0
    assert summary["curtailed_peak_w"] <= summary["curtailed_budget_w"] == pytest.approx(0.7 * summary["budget_w"])
    assert summary["rounds"] == summary["rounds_verified"] >= 2
    assert min(summary["worst_headroom"].values()) >= 0


def test_power_follows_the_jobs_and_not_the_plan(demo):
    out, _ = demo
    summary = json.loads((out / "summary.json").read_text())
    assert 1.0 < summary["planned_over_actual"] < 1.6, "plans are on the safe side, and near"
    assert summary["agents_against_meters"] < 0.05
    assert summary["work_gpu_s"] > 0.3 * 768 * summary["simulated_s"]


def test_every_gpu_was_measured_by_an_agent_and_nothing_was_lost(demo):
    out, _ = demo
    summary = json.loads((out / "summary.json").read_text())
    store = open_store(f"sqlite:///{out}/store.db")
    try:
        query = Query("gpu", (Select("power_w", "max"), Select("energy_j", "max")), {"site": "demo"}, ("node", "gpu"))
        rows = store.query(query, 0, 4e9)
        live = Query("gpu", (Select("power_w", "count"),), {"site": "demo-realtime"}, ("node", "gpu"))
        daemons = store.query(live, 0, 4e9)
        plans = store.query(Query("plan", (Select("verified"),), {"site": "demo"}, ("site",)), 0, 4e9)
    finally:
        store.close()
    assert len(rows) == 768
    assert max(row.number("power_w") for row in rows) > 400
    assert min(row.number("energy_j") for row in rows) > 0
    assert summary["agent_points_lost"] == 0
    assert len(daemons) == 16, "two nodes also run as complete daemons"
    assert not [line for line in summary["realtime"] if "(!)" in line]
    assert len(plans) >= 2


def test_the_last_plan_verifies_from_its_file(demo):
    out, _ = demo
    assert verify_plan(read_plan(out / "plan.json")) == []


def test_other_files_in_the_folder_are_left_alone_and_no_process_is_left(demo):
    out, _ = demo
    assert (out / "keep" / "mine.txt").read_text() == "not the demo's"
    assert left_behind(out) == []


def test_the_report_needs_no_network(demo):
    out, _ = demo
    page = (out / "report.html").read_text(encoding="utf-8")
    body = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"?https?:", body)
    assert "@@" not in body
    for heading in ("Site power against its budget", "Cooling load against capacity", "What ran", "The plan"):
        assert heading in body


@pytest.mark.rig
def test_the_report_opens_without_a_console_error(demo):
    out, _ = demo
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for scheme, width in (("light", 1280), ("dark", 390)):
            page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
            trouble: list[str] = []
            page.on("console", lambda message, t=trouble: t.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error, t=trouble: t.append(str(error)))
            page.on(
                "request", lambda request, t=trouble: t.append(request.url) if request.url.startswith("http") else None
            )
            page.goto(f"file://{out / 'report.html'}")
            page.wait_for_selector("#site .main-svg")
            assert trouble == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "no sideways scrolling"
            assert page.locator(".js-plotly-plot").count() == 11
        browser.close()


def test_ctrl_c_ends_in_order_and_leaves_nothing_behind(tmp_path):
    out = tmp_path / "out"
    args = ("--out", str(out), "--minutes", "600", "--no-compare")
    child = subprocess.Popen((*COMMAND, *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in child.stdout:
            if "verified" in line:
                break
        assert left_behind(out), "agents run"
        time.sleep(1.0)
        child.send_signal(signal.SIGINT)
        rest, errors = child.communicate(timeout=60)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 130, errors
    assert "interrupted" in rest
    assert json.loads((out / "summary.json").read_text())["interrupted"]
    assert (out / "report.html").exists()
    assert left_behind(out) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("", encoding="utf-8")
    done = subprocess.run((*COMMAND, "--out", str(path)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "must be a folder" in done.stderr
