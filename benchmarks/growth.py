"""Growth of time and gap with jobs, slots and halls: the open family around 10,000 jobs x 288 slots x 10 halls.

Each instance is solved once, until the target gap is proven or time is up. Every plan is checked by the independent
verifier; the gap shown is the one recomputed from the published prices.

    python benchmarks/growth.py --seconds 30 --json growth.json --plot docs/images/growth.png

The plot needs Chromium (it renders the page that plotly makes).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from powerhall_optimizer.problem.schedule_check import verify_schedule
from powerhall_optimizer.problem.synthetic import generate
from powerhall_optimizer.solve.pipeline import solve

USUAL = {"jobs": 10_000, "slots": 288, "halls": 10}
SERIES = {"jobs": (1_000, 3_000, 10_000, 30_000), "slots": (96, 288, 576), "halls": (2, 4, 10, 20)}
QUICK = {"jobs": (300, 1_000), "slots": (48, 96), "halls": (2, 10)}


def measured(size: dict[str, int], seed: int, seconds: float, target: float) -> dict[str, float | int | bool]:
    """Solve one instance; seconds are wall clock, from the problem to the plan and its prices."""
    problem = generate("open", size["jobs"], size["slots"], seed, size["halls"])
    began = time.monotonic()
    result = solve(problem, seconds=seconds, target_gap=target, seed=seed)
    spent = time.monotonic() - began
    report = verify_schedule(problem, result.schedule, result.certificate)
    return {
        **size,
        "options": problem.options,
        "seconds": round(spent, 2),
        "gap": report.gap or 0.0,
        "verified": report.ok,
    }


def plot(rows: dict[str, list[dict[str, float | int | bool]]], target: float, file: Path) -> None:
    """Plot seconds and gap against jobs, slots and halls as a PNG."""
    import plotly.graph_objects as go
    from playwright.sync_api import sync_playwright
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=3, vertical_spacing=0.1, shared_xaxes=True)
    for column, (name, points) in enumerate(rows.items(), 1):
        sizes = [p[name] for p in points]
        marks = {"mode": "lines+markers+text", "textposition": "top center", "showlegend": False}
        seconds = [p["seconds"] for p in points]
        figure.add_scatter(x=sizes, y=seconds, text=[f"{s:.0f}" for s in seconds], row=1, col=column, **marks)
        gaps = [100 * p["gap"] for p in points]
        figure.add_scatter(x=sizes, y=gaps, text=[f"{g:.2f}" for g in gaps], row=2, col=column, **marks)
        figure.update_xaxes(type="log", tickvals=sizes, ticktext=[f"{s:,}" for s in sizes], row=1, col=column)
        figure.update_xaxes(type="log", tickvals=sizes, ticktext=[f"{s:,}" for s in sizes], row=2, col=column)
        figure.update_xaxes(title=name, row=2, col=column)
    for row, key, factor in ((1, "seconds", 1.0), (2, "gap", 100.0)):
        for column, points in enumerate(rows.values(), 1):
            top = max(factor * p[key] for p in points)
            figure.update_yaxes(range=[0, 1.2 * top], row=row, col=column)
    figure.update_yaxes(title=f"seconds (until {target:.1%} is proven)", row=1, col=1)
    figure.update_yaxes(title="proven gap, %", row=2, col=1)
    figure.update_layout(template="plotly_white", width=1100, height=620, margin={"t": 30, "r": 20})
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page_file = Path(folder) / "growth.html"
        page_file.write_text(go.Figure(figure).to_html(include_plotlyjs=True))
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 640})
        page.goto(page_file.as_uri())
        page.wait_for_selector(".main-svg")
        page.screenshot(path=file)
        browser.close()


def main() -> int:
    """Run the three series and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="time limit for one instance")
    parser.add_argument("--target-gap", type=float, default=0.015)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="small sizes, 3 s each")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE", help="PNG")
    args = parser.parse_args()
    solve(generate("open", 200, 96, 0), seconds=2.0)  # compile, outside the clock
    usual = {"jobs": 1_000, "slots": 96, "halls": 10} if args.quick else USUAL
    seconds = 3.0 if args.quick else args.seconds
    done: dict[tuple[int, ...], dict[str, float | int | bool]] = {}
    rows: dict[str, list[dict[str, float | int | bool]]] = {}
    print(f"{'jobs':>7} {'slots':>6} {'halls':>6} {'options':>9} {'seconds':>8} {'gap':>8} verified", flush=True)
    for name, sizes in (QUICK if args.quick else SERIES).items():
        for size in sizes:
            instance = {**usual, name: size}
            key = tuple(instance.values())
            if key not in done:
                row = done[key] = measured(instance, args.seed, seconds, args.target_gap)
                numbers = f"{row['jobs']:7} {row['slots']:6} {row['halls']:6} {row['options']:9}"
                print(f"{numbers} {row['seconds']:8} {row['gap']:8.3%} {row['verified']}", flush=True)
            rows.setdefault(name, []).append(done[key])
    if args.json:
        document = {"seed": args.seed, "seconds": seconds, "target_gap": args.target_gap, "series": rows}
        Path(args.json).write_text(json.dumps(document, indent=1) + "\n")
    if args.plot:
        plot(rows, args.target_gap, Path(args.plot))
    return 0 if all(row["verified"] for row in done.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
