"""Failures of parts of a site: those of a file, and those drawn from rates by a seed."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
import numpy as np

from powerhall.runtime.errors import Rejected
from powerhall.runtime.settings import read_toml
from powerhall.site.index import SiteIndex
from powerhall.site.topology import Site
from powerhall.timeseries import parse_time
from powerhall.units import parse_span

__all__ = ["Failure", "FailureFile", "FailureKind", "FailureRules", "failures_of", "read_failures"]

_MOST_DRAWN = 1_000_000


class FailureKind(StrEnum):
    """The part that fails. A node without its feed draws nothing, one that failed itself its idle power.

    A plant gives no cooling; a pump takes one of its plant's units away.
    """

    GPU = "gpu"
    NODE = "node"
    PLANT = "plant"
    PUMP = "pump"
    FEED = "feed"


class Failure(msgspec.Struct, frozen=True):
    """A part that does not work from `start_s` to `end_s`: a node (also of a GPU), HALL/PLANT, or a feed."""

    kind: FailureKind
    name: str
    start_s: float
    end_s: float


class FailureRules(msgspec.Struct, frozen=True):
    """What follows a failure.

    A job that loses a GPU goes on from its last checkpoint, one every `checkpoint_s` of its run. Whoever schedules sees
    a failed plant or pump after `reaction_s`. A hall warmer than its set point by `throttle_k` throttles its GPUs to
    their slowest mode, by `trip_k` it switches off what runs; both hold until it is `recover_k` above.
    A hall with too much heat is simulated in steps of `step_s`.
    """

    checkpoint_s: float = 3600.0
    reaction_s: float = 30.0
    throttle_k: float = 5.0
    trip_k: float = 10.0
    recover_k: float = 2.0
    step_s: float = 1.0


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: FailureKind
    name: str
    start: str
    repair: str


class _Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mtbf: str
    repair: str


class _Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    checkpoint: str = "1h"
    reaction: str = "30s"
    throttle_k: float = 5.0
    trip_k: float = 10.0
    recover_k: float = 2.0


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    failures: tuple[_Entry, ...] = ()
    rates: dict[FailureKind, _Rate] = {}
    rules: _Rules = _Rules()


class FailureFile(msgspec.Struct, frozen=True):
    """A file of failures: fixed ones, mean time between failures and mean repair in s of one part, and rules."""

    fixed: tuple[Failure, ...] = ()
    rates: dict[FailureKind, tuple[float, float]] = {}
    rules: FailureRules = FailureRules()


def read_failures(path: Path, site: Site) -> FailureFile:
    """Read a file of failures (TOML); a wrong field raises Rejected with file, field, value and what is allowed."""
    raw, parts = read_toml(path, _File), _parts(site)
    fixed = []
    for number, entry in enumerate(raw.failures):
        field = f"failures[{number}]"
        if entry.name not in parts[entry.kind]:
            known = ", ".join(list(parts[entry.kind])[:3]) or "none at this site"
            raise Rejected.field(str(path), f"{field}.name", entry.name, f"must be a {entry.kind}, such as {known}")
        try:
            start_s = parse_time(entry.start)
        except ValueError as error:
            raise Rejected.field(str(path), f"{field}.start", entry.start, str(error)) from None
        end_s = start_s + _span(path, f"{field}.repair", entry.repair)
        fixed.append(Failure(entry.kind, entry.name, start_s, end_s))
    rates = {
        kind: (_span(path, f"rates.{kind}.mtbf", rate.mtbf), _span(path, f"rates.{kind}.repair", rate.repair))
        for kind, rate in raw.rates.items()
    }
    rules = raw.rules
    if not 0 < rules.recover_k <= rules.throttle_k <= rules.trip_k:
        values = f"{rules.recover_k:g}, {rules.throttle_k:g}, {rules.trip_k:g}"
        raise Rejected.field(str(path), "rules", values, "must be 0 < recover_k <= throttle_k <= trip_k")
    times = _span(path, "rules.checkpoint", rules.checkpoint), _span(path, "rules.reaction", rules.reaction, least=0.0)
    return FailureFile(tuple(fixed), rates, FailureRules(*times, rules.throttle_k, rules.trip_k, rules.recover_k))


def _span(path: Path, field: str, text: str, least: float = 1.0) -> float:
    try:
        span_s = parse_span(text)
    except ValueError as error:
        raise Rejected.field(str(path), field, text, str(error)) from None
    if not least <= span_s:
        raise Rejected.field(str(path), field, text, f"must be at least {least:g} s")
    return span_s


def _parts(site: Site) -> Mapping[FailureKind, Sequence[str]]:
    """Return the names of the parts of each kind."""
    nodes = tuple(SiteIndex.of(site).rack_of)
    plants = tuple(f"{hall.zone}/{plant.name}" for hall in site.halls for plant in hall.plants)
    feeds = tuple(feed.zone for feed in site.feeds)
    return {
        FailureKind.GPU: nodes,
        FailureKind.NODE: nodes,
        FailureKind.PLANT: plants,
        FailureKind.PUMP: plants,
        FailureKind.FEED: feeds,
    }


def failures_of(file: FailureFile, site: Site, start_s: float, end_s: float, seed: int) -> tuple[Failure, ...]:
    """Return the failures of a window in order of their start: fixed ones, and drawn ones by exponential times.

    The same arguments give the same failures. A part may fail again while it is under repair; the later end holds.
    """
    found = [one for one in file.fixed if one.start_s < end_s and one.end_s > start_s]
    index, parts = SiteIndex.of(site), _parts(site)
    for number, kind in enumerate(FailureKind):
        if kind not in file.rates or not parts[kind]:
            continue
        mtbf_s, repair_s = file.rates[kind]
        rng = np.random.default_rng([seed, number])
        weights = [index.node_type(node).gpus if kind is FailureKind.GPU else 1 for node in parts[kind]]
        many = rng.poisson(sum(weights) * (end_s - start_s) / mtbf_s)
        if many > _MOST_DRAWN:
            raise Rejected(f"failures: rates.{kind}: {many:,} failures in the window; at most {_MOST_DRAWN:,}")
        starts = start_s + np.sort(rng.random(many)) * (end_s - start_s)
        picked = rng.choice(len(weights), many, p=np.array(weights) / sum(weights))
        repairs = rng.exponential(repair_s, many)
        found += [
            Failure(kind, parts[kind][part], float(began), float(began + took))
            for began, part, took in zip(starts, picked, repairs, strict=True)
        ]
    return tuple(sorted(found, key=lambda one: (one.start_s, one.kind, one.name, one.end_s)))
