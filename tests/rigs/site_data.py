"""A small site's telemetry, made up deterministically, with some trouble in it: all that the dashboards read.

Two halls of two racks, one node of four GPUs each per rack; a curtailment half-way, a GPU that gets lost, a failing
collector, an XID, a plan every five minutes that looks twelve hours ahead.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from powerhall.store.line_protocol import Point, encode

SITE = "phx"
HALLS = ("h1", "h2")
RACKS = (("h1", "r1", "n1"), ("h1", "r2", "n2"), ("h2", "r3", "n3"), ("h2", "r4", "n4"))
GPUS = 4
Tags = dict[str, str]


@dataclass(frozen=True, slots=True)
class SiteData:
    """Telemetry over `hours` that ends at `end_s`, a point of the hot set every `step_s`."""

    end_s: int
    hours: float = 1.0
    step_s: int = 10

    @property
    def start_s(self) -> int:
        """Start of the telemetry."""
        return self.end_s - round(self.hours * 3600)

    def lines(self) -> bytes:
        """Return everything as line protocol."""
        return b"".join(
            encode(point)
            for part in (self._gpus(), self._zones(), self._plans(), self._progress(), self._rare(), self._bills())
            for point in part
        )

    def _budget_w(self, time_s: int) -> float:
        """A curtailment takes a fifth of the budget in the third quarter of the time."""
        share = (time_s - self.start_s) / (self.end_s - self.start_s)
        return 9000.0 if 0.5 <= share < 0.75 else 11_000.0

    def _gpu_w(self, time_s: int, number: int) -> float:
        held = 0.82 if self._budget_w(time_s) < 10_000 else 1.0
        return held * (420.0 + 60.0 * math.sin(time_s / 400 + number) + 10 * number)

    def _times(self, every_s: int) -> range:
        return range(self.start_s, self.end_s, every_s)

    def _gpus(self) -> Iterator[Point]:
        for time_s in self._times(self.step_s):
            for index, (hall, rack, node) in enumerate(RACKS):
                tags = {"site": SITE, "hall": hall, "rack": rack, "node": node}
                yield Point(
                    "node", tags, {"power_w": 4 * self._gpu_w(time_s, index) * 1.15, "gpus": 4.0}, time_s * 1000
                )
                for gpu in range(GPUS):
                    yield from self._gpu({**tags, "gpu": str(gpu)}, time_s, index * GPUS + gpu)

    def _gpu(self, tags: Tags, time_s: int, number: int) -> Iterator[Point]:
        lost = number == 13 and time_s > self.end_s - 600
        state = {"up": 0.0 if lost else 1.0, "reason": "lost" if lost else "ok", "call_latency_s": 0.002}
        yield Point("gpu_state", tags, state, time_s * 1000)
        if lost:
            return
        power_w = self._gpu_w(time_s, number // GPUS) + 5 * (number % GPUS)
        held_s = 2.5 if self._budget_w(time_s) < 10_000 else 0.0
        fields = {
            "power_w": power_w,
            "power_average_w": power_w,
            "energy_j": (time_s - self.start_s) * 420.0,
            "energy_integral_j": (time_s - self.start_s) * 420.0,
            "power_limit_w": 560.0,
            "temp_c": 35.0 + power_w / 14,
            "temp_margin_c": 87.0 - 35.0 - power_w / 14,
            "hbm_temp_c": 40.0 + power_w / 14,
            "util_percent": 97.0,
            "mem_used_bytes": 6.0e10 + number * 1e8,
            "sm_clock_mhz": 1980.0 - held_s * 100,
            "clocks_event_reasons": 4.0 if held_s else 0.0,
            "slow_power_cap_s": held_s * max(0.0, time_s - (self.start_s + self.end_s) / 2) / 10,
            "slow_thermal_s": 0.0,
        }
        yield Point("gpu", tags, fields, time_s * 1000)
        parts = {"sm_active_percent": 71.0, "tensor_active_percent": 34.0, "dram_active_percent": 40.0}
        sent = {"nvlink_tx_bytes_per_s": 4e10, "pcie_tx_bytes_per_s": 2e9}
        yield Point("gpu_activity", tags, parts | sent, time_s * 1000)

    def _zone(self, time_s: int, number: int, racks: int) -> dict[str, float | str]:
        it_w = sum(4 * self._gpu_w(time_s, number + rack) * 1.15 for rack in range(racks))
        budget_w = self._budget_w(time_s) * racks / 4
        cooling_w, loss_w = 0.12 * it_w, 0.05 * it_w
        return {
            "it_power_w": it_w,
            "it_measured_w": 0.8 * it_w,
            "it_estimated_w": 0.15 * it_w,
            "it_assumed_w": 0.05 * it_w,
            "cooling_power_w": cooling_w,
            "loss_power_w": loss_w,
            "facility_power_w": it_w + cooling_w + loss_w,
            "heat_w": it_w + loss_w,
            "cooling_capacity_w": 3200.0 * racks,
            "heat_liquid_w": 0.7 * it_w,
            "cooling_capacity_liquid_w": 2000.0 * racks,
            "heat_air_w": 0.3 * it_w + loss_w,
            "cooling_capacity_air_w": 1200.0 * racks,
            "cooling_load_percent": 100.0 * 0.7 * it_w / (2000.0 * racks),
            "cooling_headroom_w": 2000.0 * racks - 0.7 * it_w,
            "budget_w": budget_w,
            "headroom_w": budget_w - it_w - cooling_w - loss_w,
            "planned_w": it_w * 1.15,
            "temp_max_c": 35.0 + it_w / racks / 4 / 14,
            "gpus": 4.0 * racks,
            "gpus_busy": 4.0 * racks,
            "gpus_throttled": 4.0 * racks if budget_w / racks < 2500 else 0.0,
            "gpus_lost": 1.0 if number + racks == 4 and time_s > self.end_s - 600 else 0.0,
            "nodes": float(racks),
            "nodes_stale": 0.0,
        }

    def _zones(self) -> Iterator[Point]:
        for time_s in self._times(10):
            at_ms = time_s * 1000
            yield Point("site_10s", {"site": SITE}, self._zone(time_s, 0, 4), at_ms)
            for index, hall in enumerate(HALLS):
                yield Point("hall_10s", {"site": SITE, "hall": hall}, self._zone(time_s, 2 * index, 2), at_ms)
            for index, (hall, rack, _) in enumerate(RACKS):
                yield Point("rack_10s", {"site": SITE, "hall": hall, "rack": rack}, self._zone(time_s, index, 1), at_ms)
            if time_s % 300:
                continue
            yield Point("site_5m", {"site": SITE}, self._zone(time_s, 0, 4), at_ms)
            for index, hall in enumerate(HALLS):
                yield Point("hall_5m", {"site": SITE, "hall": hall}, self._zone(time_s, 2 * index, 2), at_ms)
            for index, (hall, rack, _) in enumerate(RACKS):
                yield Point("rack_5m", {"site": SITE, "hall": hall, "rack": rack}, self._zone(time_s, index, 1), at_ms)
        for time_s in self._times(300):
            air = {"wet_bulb_c": 19.0 + math.sin(time_s / 4000), "dry_bulb_c": 33.0 + 2 * math.sin(time_s / 4000)}
            yield Point("weather", {"site": SITE}, air, time_s * 1000)

    def _plans(self) -> Iterator[Point]:
        for number, time_s in enumerate(self._times(300)):
            plan = {
                "plan_id": f"plan{number}",
                "status": "feasible",
                "value": 9000.0 + number,
                "bound": 9200.0 + number,
                "gap": 0.02,
                "verified": 1.0,
                "solve_s": 4.0 + number % 3,
                "jobs_running": 3.0,
                "jobs_started": 1.0,
                "jobs_waiting": 2.0,
                "work_gpu_s": 5e5,
                "energy_j": 4e8,
                "cost": 11.0,
                "stale_share": 0.0,
            }
            yield Point("plan", {"site": SITE}, plan, time_s * 1000)
            granted = {
                "leases": 4.0,
                "cap_w": 9200.0,
                "clock_ahead_s": 0.1,
                "unknown": 0.0,
                "silent": 0.0,
                "refused": 0.0,
            }
            yield Point("lease_round", {"site": SITE}, granted | {"unconfirmed": 0.0}, time_s * 1000)
        last_s = time_s
        yield from self._jobs(last_s - 300, f"plan{number - 1}", 9)
        yield from self._jobs(last_s, f"plan{number}", 6)
        for slot_s in range(last_s, last_s + 43_200, 300):
            for index, zone in enumerate((SITE, *HALLS)):
                planned_w = (6000.0 + 1500 * math.sin(slot_s / 5000 + index)) / (1 if zone == SITE else 2)
                budget_w = 11_000.0 if zone == SITE else 5500.0
                fields = {
                    "planned_w": planned_w,
                    "budget_w": budget_w,
                    "headroom_w": budget_w - planned_w,
                    "price_per_mw": max(0.0, planned_w - 3500.0) if zone != SITE else 0.0,
                }
                if zone != SITE:
                    fields |= {"heat_w": planned_w, "cooling_capacity_w": 6400.0}
                yield Point("plan_zone", {"site": SITE, "zone": zone}, fields, slot_s * 1000)
            for index, storage in enumerate(("bess", "tank", "loop")):
                share = 0.5 + 0.4 * math.sin(slot_s / 7000 + index)
                fields = {"power_w": 800.0 * math.cos(slot_s / 7000 + index), "soc_percent": 100.0 * share}
                fields |= {"stored_j": 7.2e6 * share} | ({"temp_c": 45.0 - 5.0 * share} if index == 2 else {})
                yield Point("plan_storage", {"site": SITE, "storage": storage}, fields, slot_s * 1000)
            for index, (hall, lane) in enumerate((h, str(n)) for h in HALLS for n in (0, 1)):
                job = f"job-{100 + index}" if (slot_s - last_s) < 9000 * (index + 1) else "-"
                yield Point(
                    "plan_slot", {"site": SITE, "hall": hall, "lane": lane}, {"job": job, "gpus": 4.0}, slot_s * 1000
                )

    def _jobs(self, time_s: int, plan_id: str, rows: int) -> Iterator[Point]:
        """A plan of `rows` jobs; the newest has fewer than the one before, whose rows must not show."""
        for row in range(rows):
            waits = row >= 4
            fields = {
                "job": f"job-{100 + row}",
                "state": "waiting" if waits else "running",
                "hall": "" if waits else HALLS[row // 2],
                "mode": "" if waits else "560W",
                "gpus": 4.0,
                "power_w": 0.0 if waits else 2200.0,
                "start_s": 0.0 if waits else float(self.start_s),
                "end_s": 0.0 if waits else float(time_s + 9000),
                "weight": 10.0 + row,
                "reason": "waits for power in h1" if waits else "",
                "what_if": "at 14:20 in 560W if +2.2 kW in h1" if waits else "",
                "plan_id": plan_id,
            }
            yield Point("plan_job", {"site": SITE, "row": str(row)}, fields, time_s * 1000)
        for index, (hall, rack, node) in enumerate(RACKS):
            for gpu in range(GPUS):
                tags = {"site": SITE, "hall": hall, "rack": rack, "node": node, "gpu": str(gpu)}
                fields = {"job": f"job-{100 + index}", "start_s": float(self.start_s), "end_s": 0.0, "energy_j": 1.5e6}
                yield Point("job_interval", tags, fields, (self.start_s + 30) * 1000)

    def _progress(self) -> Iterator[Point]:
        for minute, time_s in enumerate(self._times(60)):
            for index, (hall, rack, node) in enumerate(RACKS):
                tags = {"site": SITE, "hall": hall, "rack": rack, "node": node}
                for place, (unit, each) in enumerate((("tokens", 90_000.0), ("steps", 11.0))):
                    done = {"done": each, "total": each * minute, "energy_j": 100_800.0}
                    named = {"job": f"job-{100 + index}", "unit": unit}
                    yield Point("job_progress", tags, {**named, **done}, time_s * 1000 + place)

    def _rare(self) -> Iterator[Point]:
        now_ms, middle_ms = (self.end_s - 10) * 1000, (self.start_s + self.end_s) // 2 * 1000
        site = {"site": SITE}
        curtailed = {"code": 1.0, "detail": "grid asks for 2 kW less", "severity": 1.0}
        yield Point("event", {**site, "kind": "curtailment"}, curtailed, middle_ms)
        yield Point(
            "event",
            {**site, "kind": "plan_change"},
            {"code": 0.0, "detail": "2 jobs slowed", "severity": 0.0},
            middle_ms + 9000,
        )
        xid = {"code": 79.0, "detail": "GPU has fallen off the bus", "severity": 2.0}
        hall, rack, node = RACKS[3]
        yield Point(
            "event",
            {**site, "hall": hall, "rack": rack, "node": node, "gpu": "1", "kind": "xid"},
            xid,
            (self.end_s - 600) * 1000,
        )
        yield Point(
            "alert",
            {**site, "zone": "h1", "kind": "budget"},
            {"active": 0.0, "detail": "above 95 % of the budget"},
            middle_ms,
        )
        for hall, device, point, value in (
            ("h1", "cdu1", "supply_temp_c", 32.0),
            ("h1", "cdu1", "flow_l_per_min", 410.0),
            ("h2", "pdu7", "power_w", 3900.0),
        ):
            yield Point(
                "facility",
                {**site, "hall": hall, "device": device, "point": point},
                {"value": value, "quality": 1.0},
                now_ms,
            )
        for hall, rack, node in RACKS:
            tags = {**site, "hall": hall, "rack": rack, "node": node}
            lease = {"cap_w": 2300.0, "safe_cap_w": 1200.0, "expires_s": float(self.end_s + 600), "plan_id": "plan"}
            yield Point("lease", {**site, "hall": hall, "node": node}, lease, now_ms)
            why = "lost: it is absent, and a capper ran here before" if node == "n2" else "-"
            state = {"up": 1.0, "leased": 1.0, "alarms": float(node == "n2"), "reason": "lease", "detail": why}
            yield Point("capper", {"node": node}, state, now_ms)
            doubt = {"dropped_readings": 31.0, "suspect": 1.0, "reason": "4,294,967 W: above 840 W"}
            if node == "n3":
                yield Point("sensor", {**tags, "gpu": "2", "sensor": "power"}, doubt, now_ms)
            for success, name in ((1.0, "gpu"), (0.0 if node == "n2" else 1.0, "rapl")):
                fields = {
                    "success": success,
                    "duration_s": 0.01,
                    "detail": "" if success else "no permission to read energy_uj",
                }
                yield Point("collector", {**tags, "collector": name}, fields, now_ms)
            for gpu in range(GPUS):
                slow = {
                    "ecc_corrected": 3.0,
                    "ecc_uncorrected": 0.0,
                    "remapped_rows": 0.0,
                    "remap_pending": 0.0,
                    "processes": 1.0,
                    "energy_closure": 0.004,
                }
                yield Point("gpu_slow", {**tags, "gpu": str(gpu)}, slow, now_ms)
                named = {"uuid": f"GPU-{node}-{gpu}", "name": "NVIDIA H100 80GB HBM3", "driver": "580.95.05"}
                yield Point("gpu_identity", {**tags, "gpu": str(gpu)}, named, (self.end_s - 300) * 1000)
        for time_s in self._times(10):
            for index, (hall, rack, node) in enumerate(RACKS):
                agent = {
                    "cpu_percent": 0.8 + 0.1 * index,
                    "rss_bytes": 45e6,
                    "lag_s": 1.0 + index,
                    "spool_bytes": 4096.0 * index,
                    "spool_points": 10.0,
                    "dropped_points": 0.0,
                    "rejected_points": 0.0,
                    "sent_points": 1e5,
                    "retries": 1.0,
                    "foreign_answers": 0.0,
                    "ticks_missed": 0.0,
                }
                yield Point("agent", {**site, "hall": hall, "rack": rack, "node": node}, agent, time_s * 1000)

    def _bills(self) -> Iterator[Point]:
        """Three days of bills that add up to the meter, and a budget that is nearly used."""
        site, kwh = {"site": SITE}, 3.6e6

        def amounts(share: float) -> dict[str, float | str]:
            energy_j = share * 200.0 * kwh
            priced = {"cost": energy_j / kwh * 0.06, "co2_kg": energy_j / kwh * 0.4, "unpriced_j": 0.0}
            return {"gpu_h": 300 * share, "it_j": energy_j / 1.2, "energy_j": energy_j, "water_l": 90 * share, **priced}

        names = {
            "tenant": {"acme": 0.5, "globex": 0.3},
            "project": {"chat": 0.5, "vision": 0.3},
            "hall": {"h1": 0.45, "h2": 0.35},
            "part": {"jobs": 0.8, "idle": 0.12, "unallocated": 0.05, "assumed": 0.03},
        }
        for day_s in (self.end_s - self.end_s % 86_400 - 86_400 * back for back in range(3)):
            at_ms = day_s * 1000
            for level, shares in names.items():
                for name, share in shares.items():
                    yield Point("bill_day", {**site, "level": level, "name": name}, amounts(share), at_ms)
            for level, job in (("job", "job-100"), ("user", "-")):
                who: dict[str, float | str] = {"job": job, "user_hash": "9f2c7b1e", "project": "chat", "tenant": "acme"}
                yield Point("bill_top", {**site, "level": level, "row": "000"}, who | amounts(0.5), at_ms)
            gaps = {"billed_j": 0.8 * 200.0 * kwh, "gap_h": 0.0}
            yield Point("bill_meter", site, amounts(1.0) | gaps, at_ms)
            yield Point("bill_peak", {**site, "charge": "grid"}, {"power_w": 9800.0, "cost": 117.6}, at_ms)
        shares = {"used_percent": 88.0, "held_percent": 2.0, "left_percent": 10.0}
        words = {"text": "6 MWh of 2026-09", "tenant": "acme"}
        yield Point("plan_budget", {**site, "budget": "acme.energy.2026-09"}, words | shares, (self.end_s - 60) * 1000)
