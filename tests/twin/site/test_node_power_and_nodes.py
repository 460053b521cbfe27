"""Draw and speed of simulated GPUs: settled figures, long steps, and planning figures that are on the safe side."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerhall.jobs.model import Job
from powerhall.plan.plan import gpu_power_w, gpu_speed
from powerhall_agent.simulate.state import StateFile
from powerhall_twin.site.job_behaviour import JOB_BEHAVIOURS, behaviour_of, speed_at
from powerhall_twin.site.node_power import draw_of, limit_of, node_model
from powerhall_twin.site.placed_runs import PlacedRun, Slice
from powerhall_twin.site.simulated_nodes import SimulatedNodes, advance_nodes, create_nodes


def one_gpu(util: float, limit_w: float) -> StateFile:
    state = StateFile.create(gpus=1, seed=3)
    state.set_load(0, util)
    state.set_limit(0, limit_w)
    return state


@given(util=st.floats(0.1, 1.0), limit_w=st.floats(200.0, 700.0), hours=st.floats(0.01, 1.0))
def test_one_long_step_ends_where_many_short_steps_end(util, limit_w, hours):
    whole, parts = one_gpu(util, limit_w), one_gpu(util, limit_w)
    advance_nodes([whole], hours * 3600)
    for _ in range(20):
        advance_nodes([parts], hours * 180)
    assert whole.power_w(0) == pytest.approx(parts.power_w(0), rel=1e-6)
    assert whole.energy_j(0) == pytest.approx(parts.energy_j(0), rel=1e-6)


@pytest.mark.parametrize("job_class", sorted(JOB_BEHAVIOURS))
def test_planning_figures_are_never_below_the_physics(site, job_class):
    kind = site.node_types["hgx-h100"]
    model = node_model(kind)
    for mode in kind.modes:
        peak = one_gpu(behaviour_of(job_class).util_peak, limit_of(mode, model.gpu))
        advance_nodes([peak], 60.0)
        planned_w = gpu_power_w(kind, mode, site.job_classes[job_class])
        assert model.share_w(peak.power_w(0)) <= planned_w + 0.5, mode.name


@pytest.mark.parametrize("job_class", sorted(JOB_BEHAVIOURS))
def test_planned_speeds_match_the_physics_within_a_percent(site, job_class):
    kind = site.node_types["hgx-h100"]
    for mode in kind.modes:
        draw = draw_of(site, Job("j", 8, 60.0, job_class=job_class), kind, mode)
        assert draw.speed == pytest.approx(gpu_speed(mode, site.job_classes[job_class]), abs=0.01)


def test_a_lower_limit_draws_less_and_works_slower(site):
    kind = site.node_types["hgx-h100"]
    draws = [draw_of(site, Job("j", 8, 60.0, job_class="pretrain"), kind, mode) for mode in kind.modes]
    assert [d.gpu_power_w for d in draws] == sorted((d.gpu_power_w for d in draws), reverse=True)
    assert [d.speed for d in draws] == sorted((d.speed for d in draws), reverse=True)


def test_a_gpu_that_cannot_be_simulated_is_taken_at_its_planning_figures(site):
    import msgspec

    kind = msgspec.structs.replace(site.node_types["hgx-h100"], gpu="Other 900")
    draw = draw_of(site, Job("j", 8, 60.0, job_class="inference"), kind, kind.modes[0])
    assert draw.gpu_power_w == gpu_power_w(kind, kind.modes[0], site.job_classes["inference"])


@given(st.floats(0.05, 1.0), st.floats(0.0, 1.0))
def test_speed_lies_between_the_clock_and_full_speed(ratio, share):
    assert ratio - 1e-9 <= speed_at(ratio, share) <= 1.0 + 1e-9


@given(st.sampled_from(sorted(JOB_BEHAVIOURS)), st.text(min_size=1), st.floats(0, 1e6))
def test_utilization_never_exceeds_its_peak(job_class, job_id, run_s):
    does = JOB_BEHAVIOURS[job_class]
    assert 0.0 < does.util_at(job_id, run_s) <= does.util_peak + 1e-9


def test_a_node_draws_its_idle_power_when_idle_and_the_planning_figure_at_the_limit(site):
    kind = site.node_types["hgx-h100"]
    model = node_model(kind)
    assert model.power_w(8 * model.gpu.idle_w) == pytest.approx(kind.idle_power_w)
    assert model.power_w(8 * 700.0) == pytest.approx(8 * kind.modes[0].gpu_power_w)


def test_nodes_draw_by_the_load_of_their_jobs_and_by_their_limits(site, tmp_path):
    create_nodes(site, tmp_path, seed=1)
    live = SimulatedNodes.open(site, tmp_path)
    kind = site.node_types["hgx-h100"]
    node = next(site.racks()).nodes[0]
    slow = kind.modes[-1]
    job = Job("j", 8, 3600.0, job_class="pretrain")
    run = PlacedRun(job, "hall1", slow, (Slice(node, tuple(range(8))),), 0.0)
    live.apply([run], 0.0, {hall.zone: 28.0 for hall in site.halls})
    advance_nodes(list(live.states.values()), 60.0)
    assert live.power_w(node) == pytest.approx(8 * draw_of(site, job, kind, slow).gpu_power_w, rel=0.01)
    other = next(site.racks()).nodes[1]
    assert live.power_w(other) == pytest.approx(kind.idle_power_w, rel=1e-3)
    assert math.isclose(live.clock_ratio(node, 0), 0.688, abs_tol=0.02)
    live.apply([], 60.0, {hall.zone: 28.0 for hall in site.halls})
    advance_nodes(list(live.states.values()), 60.0)
    assert live.power_w(node) == pytest.approx(kind.idle_power_w, rel=1e-3)
