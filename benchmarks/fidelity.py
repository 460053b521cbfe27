"""How near the models are to what others measured and published; plots for docs/fidelity.md.

    python benchmarks/fidelity.py --data ../shared/data --plots docs/images --json fidelity.json

Data: node power of MLPerf training (mlcommons/training_results_v4.0), chiller tables of Modelica Buildings
(lbl-srg/modelica-buildings), Frontier's configuration (ExaDigiT/RAPS).
"""

import argparse
import csv
import json
import lzma
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from powerhall.physics.cooling import hall_load
from powerhall.physics.plants.chiller_curves import condenser_step, power_share
from powerhall.physics.weather import Weather
from powerhall.site.chiller_files import read_curves
from powerhall.site.topology import Losses, Site
from powerhall_twin.site.raps_system import raps_node_power_w, raps_site, read_raps_system

Trace = list[tuple[float, float]]
Runs = dict[str, dict[int, list[Trace]]]
MILD = Weather(20.0, 15.0)
PUBLISHED_W = {"idle": 7.24e6, "peak": 28.2e6}
"""Of RAPS itself (SC24, arXiv 2410.05133): what its model gives for Frontier."""
AVERAGE_W, EFFICIENCY = 18.93e6, 0.9335
"""Mean power and conversion efficiency of RAPS's synthetic day on Frontier's configuration."""
_BUSY = 0.6


def traces(path: Path) -> Runs:
    """Return the power traces of a file by benchmark and run, a trace per node; negative readings count as 0."""
    found: Runs = defaultdict(lambda: defaultdict(list))
    by_node: dict[tuple[str, int, str], Trace] = defaultdict(list)
    with lzma.open(path, "rt") as lines:
        for row in csv.DictReader(lines):
            key = row["bench"], int(row["run"]), row["node"]
            by_node[key].append((int(row["time_ms"]) / 1e3, max(0.0, float(row["watts"]))))
    for (bench, run, _), trace in by_node.items():
        found[bench][run].append(sorted(trace))
    return found


def energy_j(trace: Trace) -> float:
    """Return the energy under a trace."""
    return sum((b - a) * (v + w) / 2 for (a, v), (b, w) in pairwise(trace))


def phases(run: Iterable[Trace]) -> tuple[float, float, float, float]:
    """Return busy and waiting W, and seconds busy and waiting of all nodes; busy: above 60 % of the 95th percentile."""
    busy_j = busy_s = wait_j = wait_s = 0.0
    for trace in run:
        high = statistics.quantiles([w for _, w in trace], n=20)[18]
        for (a, v), (b, w) in pairwise(trace):
            joules = (b - a) * (v + w) / 2
            if v > _BUSY * high:
                busy_j, busy_s = busy_j + joules, busy_s + b - a
            else:
                wait_j, wait_s = wait_j + joules, wait_s + b - a
    return busy_j / busy_s, wait_j / wait_s if wait_s else 0.0, busy_s, wait_s


def node_errors(runs: dict[int, list[Trace]]) -> list[float]:
    """Return the error of the energy of each run but the first, whose two powers the others are modelled with.

    A planned job draws one power while it computes and the idle one around it: what a plan knows of it are times.
    """
    first, *others = (runs[number] for number in sorted(runs))
    busy_w, wait_w, _, _ = phases(first)
    seen = {round(sum(map(energy_j, first)))}
    errors = []
    for run in others:
        joules = sum(map(energy_j, run))
        if round(joules) in seen:
            continue  # some files repeat a run
        seen.add(round(joules))
        _, _, busy_s, wait_s = phases(run)
        errors.append((busy_w * busy_s + wait_w * wait_s) / joules - 1)
    return errors


def supply_errors(ac: Runs, dc: Runs) -> tuple[Losses, list[float]]:
    """Return the power supplies' loss fitted to the runs of even number, and the errors of the others' energy at AC."""
    pairs = []
    for bench, runs in ac.items():
        for number, run in runs.items():
            seconds = sum(trace[-1][0] - trace[0][0] for trace in run)
            pairs.append((number, sum(map(energy_j, dc[bench][number])) / seconds, sum(map(energy_j, run)) / seconds))
    fit = [(out_w, in_w) for number, out_w, in_w in pairs if number % 2 == 0]
    linear = sum(in_w * out_w for out_w, in_w in fit) / sum(out_w**2 for out_w, _ in fit) - 1
    losses = Losses(linear=linear)
    return losses, [(o + losses.power_w(o)) / i - 1 for number, o, i in pairs if number % 2]


def chiller_errors(folder: Path, table: str, name: str) -> list[tuple[float, float]]:
    """Return (part load, error of the power) at every point of a table of Modelica Buildings."""
    curves = read_curves(folder / "energyplus_chillers.csv", name)
    with (folder / "energyplus_chillers.csv").open() as lines:
        rated_w = next(float(r["QEva_kW"]) * 1e3 for r in csv.DictReader(lines) if r["name"] == name)
    tables: dict[tuple[str, float], list[list[float]]] = {}
    lines_of = (folder / table).read_text().splitlines()
    for at, line in enumerate(lines_of):
        if head := re.match(r"double (\w)@([\d.]+)\((\d+),", line):
            rows = lines_of[at + 1 : at + 1 + int(head[3])]
            tables[head[1], float(head[2])] = [[float(cell) for cell in row.split()] for row in rows]
    found = []
    for (kind, load), rows in tables.items():
        if kind == "p":
            heat = tables["q", load]
            for i in range(1, len(rows)):
                for j in range(1, len(rows[0])):
                    step = condenser_step(rows[0][j] - 273.15)
                    share = power_share(curves, rows[i][0] - 273.15, step, abs(heat[i][j]) / rated_w)
                    found.append((load, share * rated_w / curves.cop / abs(rows[i][j]) - 1))
    return found


def frontier_w(site: Site, part: float) -> tuple[float, float]:
    """Return facility power and losses in W with all nodes at this share of the way from idle to full."""
    kind = next(iter(site.node_types.values()))
    nodes = sum(len(rack.nodes) for rack in site.racks())
    it_w = nodes * (kind.idle_power_w + part * (kind.max_power_w - kind.idle_power_w))
    load = hall_load(site.halls[0], it_w, 0.0, MILD)
    return load.facility_power_w, load.loss_power_w


def frontier(path: Path) -> dict[str, float]:
    """Return Frontier's figures by our model of RAPS's configuration."""
    system = read_raps_system(path)
    site = raps_site(system, "frontier")
    low, high = 0.0, 1.0
    for _ in range(60):
        part = (low + high) / 2
        low, high = (part, high) if frontier_w(site, part)[0] < AVERAGE_W else (low, part)
    total_w, loss_w = frontier_w(site, low)
    idle_w, peak_w = frontier_w(site, 0.0)[0], frontier_w(site, 1.0)[0]
    cdus_w = site.halls[0].plants[0].pump_power_w
    return {
        "nodes": float(sum(len(rack.nodes) for rack in site.racks())),
        "node_idle_w": raps_node_power_w(system, 0.0, 0.0),
        "idle_w": idle_w,
        "peak_w": peak_w,
        "efficiency": 1 - loss_w / (total_w - cdus_w),
        "pue_it_at_rectifier": total_w / (total_w - cdus_w),
        "pue_it_at_node": total_w / (total_w - cdus_w - loss_w),
    }


def svg(title: str, unit: str, lines: Sequence[tuple[str, str, Trace]], note: str) -> str:
    """Return a plot of lines (name, colour, points over seconds) as SVG."""
    width, height, left, top = 860, 330, 62, 46
    end = max(x for _, _, points in lines for x, _ in points)
    high = 1.06 * max(y for _, _, points in lines for _, y in points)
    to_x, to_y = (width - left - 16) / end, (height - top - 44) / high
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" ',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/><text x="{left}" y="20" font-size="15">{title}</text>',
    ]
    for number in range(5):
        y, value = height - 44 - number * (height - top - 44) / 4, high * number / 4
        parts.append(f'<line x1="{left}" x2="{width - 16}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{value:,.1f} {unit}</text>')
    for number, (name, colour, points) in enumerate(lines):
        path = " ".join(f"{left + x * to_x:.1f},{height - 44 - y * to_y:.1f}" for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.3" points="{path}"/>')
        x = left + number * 190
        parts.append(
            f'<rect x="{x}" y="30" width="16" height="4" fill="{colour}"/><text x="{x + 22}" y="37">{name}</text>'
        )
    parts.append(f'<text x="{left}" y="{height - 22}" fill="#555">0 to {end:,.0f} s</text>')
    parts.append(f'<text x="{left}" y="{height - 6}" fill="#555">{note}</text></svg>\n')
    return "\n".join(parts)


def ramp_plot(run: list[Trace], calibrated: list[Trace], title: str) -> str:
    """Return measured and modelled power of a run: steps from waiting to busy, as the twin makes them."""
    busy_w, wait_w, _, _ = phases(calibrated)
    begin = min(trace[0][0] for trace in run)
    count = len(run)
    measured: Trace = []
    modelled: Trace = []
    highs = [statistics.quantiles([w for _, w in trace], n=20)[18] for trace in run]
    for number, (at, _) in enumerate(run[0]):
        now = [trace[min(number, len(trace) - 1)][1] for trace in run]
        measured.append((at - begin, sum(now) / 1e3))
        busy = sum(w > _BUSY * high for w, high in zip(now, highs, strict=True))
        modelled.append((at - begin, (busy * busy_w + (count - busy) * wait_w) / 1e3))
    lines = [("measured", "#2f6fd4", measured), ("modelled", "#d64550", modelled)]
    return svg(
        title, "kW", lines, "MLPerf Training 4.0, one reading in 2 s; the model's two powers are those of another run"
    )


def all_figures(data: Path) -> dict[str, object]:
    """Return every figure."""
    power = data / "power"
    ac, dc, eight = (traces(power / f"{name}_all.csv.xz") for name in ("ac_1node", "dc_1node", "ac_8node"))
    losses, supply = supply_errors(ac, dc)
    eir = "ElectricEIRChiller_"
    mcquay, york = "McQuay_WSC_471kW_5_89COP_Vanes", "York_YCAL0033EE_101kW_3_1COP_AirCooled"
    chillers = {
        "McQuay WSC 471 kW": (f"{mcquay}_TConEnt.txt", eir + mcquay),
        "York YCAL0033EE 101 kW": (f"{york}.txt", eir + york),
    }
    return {
        "one_node": {bench: node_errors(runs) for bench, runs in ac.items()},
        "eight_nodes": {bench: node_errors(runs) for bench, runs in eight.items()},
        "supply_loss": losses.linear,
        "supply": supply,
        "chillers": {key: chiller_errors(data / "chillers", *where) for key, where in chillers.items()},
        "frontier": frontier(data / "systems" / "frontier.yaml"),
    }


def main() -> int:
    """Print the figures and write the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--plots", type=Path, help="folder for the plots")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    found = all_figures(args.data)
    text = json.dumps(found, indent=1)
    if args.json is not None:
        args.json.write_text(text + "\n")
    for name in ("one_node", "eight_nodes"):
        for bench, errors in found[name].items():  # type: ignore[attr-defined]
            line = f"{statistics.fmean(errors):+.1%} mean, {max(errors, key=abs):+.1%} worst of {len(errors)}"
            sys.stdout.write(f"{name:12} {bench:16} {line}\n")
    supply = found["supply"]
    sys.stdout.write(f"supplies: {found['supply_loss']:.2%} loss, worst {max(supply, key=abs):+.2%}\n")  # type: ignore[call-overload]
    for name, points in found["chillers"].items():  # type: ignore[attr-defined]
        usual = [abs(error) for load, error in points if 0.4 <= load <= 1.0]
        within = sum(error <= 0.01 for error in usual)
        sys.stdout.write(f"{name}: {within} of {len(usual)} points within 1 %, median {statistics.median(usual):.2%}\n")
    sys.stdout.write(json.dumps(found["frontier"], indent=1) + "\n")
    if args.plots is not None:
        power = args.data / "power"
        one, eight = traces(power / "ac_1node_all.csv.xz")["bert"], traces(power / "ac_8node_all.csv.xz")["resnet"]
        numbers, more = sorted(one), sorted(eight)
        (args.plots / "fidelity-one-node.svg").write_text(
            ramp_plot(one[numbers[1]], one[numbers[0]], "BERT on one node of 8 H100")
        )
        (args.plots / "fidelity-eight-nodes.svg").write_text(
            ramp_plot(eight[more[1]], eight[more[0]], "ResNet on eight nodes of 8 H100")
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
