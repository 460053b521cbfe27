"""Plot of the project-scheduling benchmark: for every gap, the share of instances within it."""

from pathlib import Path
from xml.sax.saxutils import escape

from powerhall.runtime.errors import Rejected

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 400, 56, 24, 48
RIGHT = 500
COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#7f6000")
GRID, INK = "#d8d8d8", "#333333"
Curve = tuple[str, list[float], bool]
"""Label, gaps in percent, and whether the line is dashed; two curves that follow each other share a colour."""


def write_plot(path: Path, curves: list[Curve]) -> None:
    """Write the picture as SVG."""
    try:
        path.write_text(drawn(curves), encoding="utf-8")
    except OSError as error:
        raise Rejected.field("command line", "--plot", str(path), f"cannot be written: {error.strerror}") from error


def drawn(curves: list[Curve]) -> str:
    """Return the SVG text."""
    most = max((gap for _, gaps, _ in curves for gap in gaps), default=0.0)
    reach = max(1.0, most * 1.02)
    parts = [*axes(reach)]
    for at, (label, gaps, dashed) in enumerate(curves):
        stroke = f'stroke="{COLOURS[at // 2 % len(COLOURS)]}" stroke-width="2" fill="none"' + (
            ' stroke-dasharray="6 4"' if dashed else ""
        )
        points = " ".join(f"{x(gap, reach):.1f},{y(share):.1f}" for gap, share in steps(gaps, reach))
        row = TOP + 14 + 20 * at
        parts.append(f'<polyline {stroke} points="{points}"/>')
        parts.append(f'<line {stroke} x1="{RIGHT + 16}" x2="{RIGHT + 46}" y1="{row - 4}" y2="{row - 4}"/>')
        parts.append(text(RIGHT + 52, row, f"{label} ({len(gaps)})", "start"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def steps(gaps: list[float], reach: float) -> list[tuple[float, float]]:
    """Return the corners of the curve: a negative gap (better than best known) counts from zero on."""
    corners = [(0.0, 0.0)]
    for at, gap in enumerate(sorted(max(gap, 0.0) for gap in gaps), 1):
        corners += [(gap, corners[-1][1]), (gap, at / len(gaps))]
    return [*corners, (reach, corners[-1][1])]


def axes(reach: float) -> list[str]:
    """Grid, numbers and titles."""
    parts = []
    for tick in range(6):
        share, gap = tick / 5, reach * tick / 5
        parts.append(f'<path stroke="{GRID}" d="M{LEFT} {y(share):.1f}H{RIGHT}M{x(gap, reach):.1f} {TOP}V{y(0):.1f}"/>')
        parts.append(text(LEFT - 6, y(share) + 4, f"{100 * share:.0f} %", "end"))
        parts.append(text(x(gap, reach), HEIGHT - BOTTOM + 16, f"{gap:.1f} %", "middle"))
    parts.append(text((LEFT + RIGHT) / 2, HEIGHT - 12, "gap to the best known makespan", "middle"))
    parts.append(text(LEFT, TOP - 8, "share of instances within the gap", "start"))
    return parts


def text(left: float, base: float, words: str, anchor: str) -> str:
    return f'<text x="{left:.1f}" y="{base:.1f}" fill="{INK}" text-anchor="{anchor}">{escape(words)}</text>'


def x(gap: float, reach: float) -> float:
    return LEFT + (RIGHT - LEFT) * gap / reach


def y(share: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share
