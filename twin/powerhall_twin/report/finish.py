"""The end of a demo: reads telemetry back from the store, compares policies, and writes summary and report."""

import sys

import msgspec

from powerhall.runtime.files import replace_file
from powerhall.store import open_store
from powerhall_twin.demo.demo_result import DemoResult
from powerhall_twin.report.measured import Telemetry, agents_against_meters, read_telemetry
from powerhall_twin.report.page import write_report
from powerhall_twin.report.summary import Summary, baselines, summarise, table

__all__ = ["finish"]


def planned_over_actual(result: DemoResult, telemetry: Telemetry) -> float | None:
    """Return the mean of planned over measured site power; above 1 the plans overestimated the power."""
    planned = {slot.time_s: slot.zone_w.get(result.run.site.name, 0) for slot in result.planned}
    ratios = []
    for time_s, actual_w in zip(telemetry.times_s, telemetry.site["facility_power_w"], strict=True):
        planned_w = planned.get((time_s - 1) // 300 * 300)
        if planned_w and actual_w and time_s >= result.start_s + 300:
            ratios.append(planned_w / actual_w)
    return sum(ratios) / len(ratios) if ratios else None


def finish(result: DemoResult, *, compare: bool, as_json: bool) -> Summary:
    """Write summary.json and report.html into the output folder and print the summary."""
    out, site, sample_s = result.settings.out, result.run.site, result.settings.sample_s
    store = open_store(result.store)
    try:
        telemetry = read_telemetry(store, site, result.start_s, result.end_s, sample_s)
    finally:
        store.close()
    summary = summarise(
        result,
        baselines(result) if compare and result.end_s > result.start_s else (),
        agents_against_meters=agents_against_meters(site, telemetry, sample_s),
        planned_over_actual=planned_over_actual(result, telemetry),
    )
    text = msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n"
    replace_file(out / "summary.json", text)
    write_report(result, summary, telemetry, out / "report.html")
    sys.stdout.write(text.decode() if as_json else f"\n{table(summary)}\n{out / 'report.html'}\n")
    return summary
