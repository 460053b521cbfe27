"""Plan from a script or a notebook: read a site and a queue, plan, verify, explain, report.

    >>> from powerhall_optimizer import api
    >>> site = api.read_site("site.toml")
    >>> queue = api.read_queue("jobs.csv")
    >>> plan = api.plan(site, queue, start="2026-07-01T00:00Z", horizon="6h", seconds=1)
    >>> api.verify(plan)
    []

The functions run the code of `powerhall-optimizer round`, `verify`, `explain` and `report`: the same inputs give a plan
of the same id. Whatever is refused raises a PowerhallError whose text is one line with source, field, value and what is
allowed.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import overload

from powerhall.forecasts.local_time import parse_zone_or_offset
from powerhall.jobs import Job, check_jobs, read_job_file, write_jobs
from powerhall.plan.multi_site import MultiSitePlan, read_plans
from powerhall.plan.plan import Objective, Plan
from powerhall.runtime.errors import PowerhallError, Rejected
from powerhall.runtime.files import replace_file
from powerhall.runtime.log import Log
from powerhall_optimizer.inputs import round_settings
from powerhall_optimizer.inputs.round_settings import RoundSettings, check_settings
from powerhall_optimizer.inputs.snapshot import SiteInputs
from powerhall_optimizer.planning.figures import Figures, figures_of
from powerhall_optimizer.verify.multi_site import verify_plans
from powerhall_optimizer.verify.plan import Violation

__all__ = [
    "Figures",
    "Job",
    "MultiSitePlan",
    "Objective",
    "Plan",
    "PowerhallError",
    "RoundSettings",
    "SiteInputs",
    "Violation",
    "explain",
    "figures",
    "plan",
    "read_plan",
    "read_queue",
    "read_settings",
    "read_site",
    "verify",
    "write_plan",
    "write_queue",
    "write_report",
]


def read_site(path: str | Path) -> SiteInputs:
    """Read site.toml; it names the weather, price and carbon files, which are read when a plan is made.

    >>> read_site("site.toml").site.name
    'lab'
    """
    return SiteInputs.read(path)


def read_queue(path: str | Path, jobs_format: str | None = None, *, timezone: str | None = None) -> tuple[Job, ...]:
    """Read a queue in any format of `--jobs-format`; it is detected if not given.

    Times without an offset are local to `timezone`, an IANA name or an offset such as "+01:00"; without it, UTC.

    >>> [job.job_id for job in read_queue("jobs.csv")][:2]
    ['prep', 'train']
    """
    try:
        zone = None if timezone is None else parse_zone_or_offset(timezone)
    except ValueError as error:
        raise Rejected.field("read_queue", "timezone", timezone, str(error)) from None
    return read_job_file(path, jobs_format, zone)


def write_queue(jobs: Sequence[Job], path: str | Path) -> None:
    """Write jobs as own CSV, which `powerhall-optimizer round --jobs` reads.

    >>> write_queue([Job("night", gpus=8, duration_s=3600.0)], "night.csv")
    >>> read_queue("night.csv")[0].gpus
    8
    """
    rows = write_jobs(check_jobs(jobs, "queue"))
    with _writing(path):
        replace_file(path, rows.encode())


def read_settings(path: str | Path) -> RoundSettings:
    """Read the TOML file of `round --settings`.

    >>> _ = Path("round.toml").write_text("slot_s = 600")
    >>> read_settings("round.toml").slot_s
    600
    """
    return round_settings.read_settings(Path(path))


@overload
def plan(
    site: SiteInputs,
    queue: Sequence[Job],
    *,
    start: str | datetime | None = ...,
    start_s: float | None = ...,
    horizon: str | None = ...,
    horizon_s: float | None = ...,
    seconds: float = ...,
    settings: RoundSettings | None = ...,
    down_nodes: Sequence[str] = ...,
    off_nodes: Sequence[str] = ...,
    what_if: str | None = ...,
    previous: Plan | None = ...,
) -> Plan: ...


@overload
def plan(
    site: Sequence[SiteInputs],
    queue: Sequence[Job],
    *,
    start: str | datetime | None = ...,
    start_s: float | None = ...,
    horizon: str | None = ...,
    horizon_s: float | None = ...,
    seconds: float = ...,
    settings: RoundSettings | None = ...,
    down_nodes: Sequence[str] = ...,
    off_nodes: Sequence[str] = ...,
    what_if: str | None = ...,
    previous: MultiSitePlan | None = ...,
) -> MultiSitePlan: ...


def plan(
    site: SiteInputs | Sequence[SiteInputs],
    queue: Sequence[Job],
    *,
    start: str | datetime | None = None,
    start_s: float | None = None,
    horizon: str | None = None,
    horizon_s: float | None = None,
    seconds: float = 60.0,
    settings: RoundSettings | None = None,
    down_nodes: Sequence[str] = (),
    off_nodes: Sequence[str] = (),
    what_if: str | None = None,
    previous: Plan | MultiSitePlan | None = None,
) -> Plan | MultiSitePlan:
    """Return a verified plan of one site, or of a sequence of sites that are planned together; publish nothing.

    The plan begins at `start`, ISO 8601 text or a datetime (UTC without an offset), or at `start_s`, seconds since the
    epoch; without either, now. It is `horizon` long, such as "12h", or `horizon_s` seconds; without either, 24 h.
    `seconds` is the time to solve; `settings` has the seed. `what_if` changes the inputs first, as
    `round --what-if` does. The plan stays near `previous`, the last one, as the settings `keep_s` and `move_gain`
    say; for the same inputs it is returned as it is.

    >>> jobs = [Job("one", gpus=8, duration_s=3600.0), Job("two", gpus=16, duration_s=1800.0, weight=2.0)]
    >>> made = plan(read_site("site.toml"), jobs, start_s=1_782_864_000, horizon_s=6 * 3600, seconds=1)
    >>> sorted(job.job_id for job in made.assignments)
    ['one', 'two']
    """
    from powerhall_optimizer.round.multi_site import run_multi_site_round
    from powerhall_optimizer.round.request import RoundRequest, check_request, plan_horizon
    from powerhall_optimizer.round.single_site import run_round

    settings = settings or RoundSettings()
    check_settings(settings, "settings")
    start_text = _one_of("start", start, start_s, "")
    horizon_text = _one_of("horizon", horizon, horizon_s, " s") or "24h"
    now_s, slots = plan_horizon(start_text, horizon_text, settings.slot_s, _refuse)
    request = RoundRequest(
        sites=(site,) if isinstance(site, SiteInputs) else tuple(site),
        horizon=slots,
        now_s=now_s,
        seconds=seconds,
        jobs=check_jobs(queue, "queue"),
        dry_run=True,
        down_nodes=tuple(down_nodes),
        off_nodes=tuple(off_nodes),
        what_if=what_if,
        previous=previous,
    )
    check_request(request, _refuse)
    run = run_round if isinstance(site, SiteInputs) else run_multi_site_round
    return run(request, settings, lambda: False, Log(quiet=True), int(time.time()))


@contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    """Turn a file that cannot be written into a PowerhallError."""
    try:
        yield
    except OSError as error:
        raise PowerhallError(f"{path}: cannot write: {error.strerror}") from None


def _refuse(option: str, value: object, allowed: str) -> Rejected:
    return Rejected.field("plan", option, value, allowed)


def _one_of(name: str, text: object, number: float | None, unit: str) -> str | None:
    """Return an argument that may be given as text or as a number of seconds."""
    if text is not None and number is not None:
        raise _refuse(f"{name}_s", number, f"must not be given together with {name}")
    if number is not None:
        return f"{number}{unit}"
    return None if text is None else str(text)


def verify(plan: Plan | MultiSitePlan) -> list[Violation]:
    """Recompute every limit, the value and the bound from the plan alone; an empty list is a plan that holds.

    >>> verify(read_plan("plan.json"))
    []
    """
    return verify_plans(plan)


def explain(
    plan: Plan | MultiSitePlan, job_id: str, *, seconds: float = 30.0, settings: RoundSettings | None = None
) -> list[str]:
    """Return why a job waits, runs later or slower, and what would change it, as lines of text.

    What would start a waiting job is checked by planning again for up to `seconds` in all, with the `settings` of the
    rounds; with 0 only what holds alone is said.

    >>> print(explain(read_plan("plan.json"), "train")[1])
      16 GPUs, weight 2, 2.00 h of work, queued
    """
    from powerhall_optimizer.planning.explanation import job_explanation, no_time
    from powerhall_optimizer.round.planned_again import PlannedAgain

    replan = PlannedAgain(plan, settings or RoundSettings(), seconds) if isinstance(plan, Plan) else no_time
    return list(job_explanation(plan, job_id, f"plan {plan.plan_id[:12]}", replan).lines)


def figures(plan: Plan | MultiSitePlan) -> Figures:
    """Return jobs, work in GPU s, energy in J and cost in USD over the plan's horizon.

    >>> figures(read_plan("plan.json")).jobs_waiting
    0
    """
    return figures_of(plan)


def write_report(plan: Plan | MultiSitePlan, path: str | Path) -> None:
    """Write the plan as one self-contained HTML page.

    >>> write_report(read_plan("plan.json"), "report.html")
    """
    from powerhall_optimizer.report import page

    with _writing(path):
        page.write_report(plan, Path(path))


def read_plan(path: str | Path) -> Plan | MultiSitePlan:
    """Read a plan of one site or of several, whichever the file holds.

    >>> read_plan("plan.json").status in ("optimal", "feasible")
    True
    """
    return read_plans(path)


def write_plan(plan: Plan | MultiSitePlan, path: str | Path) -> None:
    """Verify the plan and write it with its emergency ladder, as a round does; of several sites also a plan for each.

    >>> write_plan(read_plan("plan.json"), "copy.json")
    """
    from powerhall_optimizer.round.publish import publish_plans

    with _writing(path):
        publish_plans(plan, None, Path(path))
