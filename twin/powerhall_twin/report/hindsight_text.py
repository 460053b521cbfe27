"""The result of a hindsight as sentences and rows, for the terminal and for the page."""

import time

from powerhall_twin.hindsight.hindsight import Hindsight

__all__ = ["ROWS_HEADER", "calibration_text", "figure_rows", "headline", "hindsight_text", "window_text"]

ROWS_HEADER = ("", "done", "possible", "difference")


def headline(found: Hindsight) -> str:
    """Return what was lost, as one sentence."""
    most_usd, least_usd = found.bound_usd - found.done_usd, found.possible_usd - found.done_usd
    if most_usd <= 0:
        return "Your scheduler lost nothing: no policy within these budgets could have earned more."
    if least_usd <= 0:
        return (
            f"Your scheduler lost at most {found.lost_most:.1%} ({most_usd:,.0f} USD); "
            "no plan that earns more was found."
        )
    return (
        f"Your scheduler lost at most {found.lost_most:.1%} ({most_usd:,.0f} USD), "
        f"at least {found.lost_least:.1%} ({least_usd:,.0f} USD)."
    )


def window_text(found: Hindsight) -> str:
    """Return what was looked at."""
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(found.start_s))
    hours = (found.end_s - found.start_s) / 3600
    return f"{found.jobs:,} jobs at site {found.site}, {hours:,.1f} h from {began} UTC"


def figure_rows(found: Hindsight) -> list[tuple[str, str, str, str]]:
    """Return rows of (name, done, possible, difference)."""
    d, p = found.done, found.possible
    pairs: list[tuple[str, float, float, int]] = [
        ("earned, USD", d.value_usd, p.value_usd, 0),
        ("  work, USD", d.work_usd, p.work_usd, 0),
        ("  less delay, USD", d.delay_usd, p.delay_usd, 0),
        ("  less energy of the jobs, USD", d.job_energy_usd, p.job_energy_usd, 0),
        ("work in the window, GPU h", d.work_gpu_h, p.work_gpu_h, 0),
        ("energy at the meter, MWh", d.energy_j / 3.6e9, p.energy_j / 3.6e9, 2),
        ("cost of it, USD", d.energy_usd, p.energy_usd, 0),
    ]
    if d.co2_kg is not None and p.co2_kg is not None:
        pairs.append(("CO2, t", d.co2_kg / 1e3, p.co2_kg / 1e3, 2))
    pairs += [
        ("peak power, kW", d.peak_w / 1e3, p.peak_w / 1e3, 0),
        ("above the site's budget, h", d.over_budget_h, p.over_budget_h, 1),
        ("jobs begun", d.jobs_begun, p.jobs_begun, 0),
        ("jobs ended in the window", d.jobs_done, p.jobs_done, 0),
        ("mean wait, min", d.mean_wait_s / 60, p.mean_wait_s / 60, 0),
    ]
    return [(n, f"{a:,.{k}f}", f"{b:,.{k}f}", f"{b - a:+,.{k}f}") for n, a, b, k in pairs]


def calibration_text(found: Hindsight) -> str:
    """Return how the model and the meter compare."""
    c = found.calibration
    if c is None:
        return "No meter: the power of the jobs is the model's, unchecked."
    first = (
        f"The meter covers {c.covered:.1%} of the window and measured {c.metered_j / 3.6e9:,.2f} MWh there; the model "
        f"says {c.modelled_j / 3.6e9:,.2f} MWh ({c.modelled_j / max(1.0, c.metered_j) - 1:+.1%}). "
    )
    if not c.applied:
        return first + f"A factor of {c.factor:.2f} on the jobs' power would close it: not believed, not applied."
    return (
        first
        + f"With {c.factor:.2f} times the jobs' modelled power the energies agree, slots are {c.error:.1%} apart on "
        f"average (correlation {c.correlation:.2f}), and {c.odd_h:,.1f} h by more than a quarter."
    )


def hindsight_text(found: Hindsight) -> str:
    """Return the result for a terminal."""
    lines = [headline(found), window_text(found), ""]
    lines.append(f"{ROWS_HEADER[0]:34}{ROWS_HEADER[1]:>14}{ROWS_HEADER[2]:>14}{ROWS_HEADER[3]:>14}")
    lines += [f"{name:34}{done:>14}{possible:>14}{more:>14}" for name, done, possible, more in figure_rows(found)]
    lines.append(f"{'at most, by any policy, USD':34}{'':14}{found.bound_usd:>14,.0f}")
    lines += ["", calibration_text(found), *(f"note: {note}" for note in found.notes)]
    return "\n".join(lines) + "\n"
