"""What is wrong with a plan by physics of its own: plain Python on the plan's JSON, no code of the product.

It knows the plants `fixed`, `dry_cooler` and `tower_chiller` without staging, and batteries. What it does not know it
does not judge. `faults` returns sentences; none means that the plan may well be right.
"""

import math
import re
from collections.abc import Iterator
from itertools import pairwise

SLACK_W = 0.51
APPROACH_K = ((5.0, 9.4), (10.0, 7.8), (15.0, 6.3), (20.0, 5.1), (25.0, 4.0), (30.0, 3.1))


def names(hosts: str) -> list[str]:
    """The nodes of a host list with brackets."""
    found = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", hosts):
        inside = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", part)
        if inside is None:
            found.append(part)
            continue
        front, numbers, back = inside.groups()
        for item in numbers.split(","):
            first, _, last = item.partition("-")
            found += [f"{front}{n:0{len(first)}d}{back}" for n in range(int(first), int(last or first) + 1)]
    return found


class Judge:
    """One plan, as decoded JSON."""

    def __init__(self, plan: dict) -> None:
        self.plan, self.s, self.site = plan, plan["snapshot"], plan["snapshot"]["site"]
        self.t0, self.dt, self.n = self.s["start_s"], self.s["slot_s"], self.s["slots"]
        self.jobs = {job["job_id"]: job for job in self.s["jobs"]}
        self.kinds = self.site["node_types"]
        self.racks = {r["zone"]: (h["zone"], row["zone"], r) for h in self.site["halls"] for row in h["rows"]
                      for r in row["racks"]}  # fmt: skip
        self.rack_of = {node: zone for zone, (_, _, rack) in self.racks.items() for node in rack["nodes"]}
        self.closed = {*self.s.get("down_nodes", ()), *self.s.get("stale_nodes", ())}
        self.waits = {w["job_id"]: w for w in plan["waiting"]}

    def faults(self) -> list[str]:
        found = list(self.finite(self.plan, "plan"))
        if not found:
            for part in (self.decided, self.decisions, self.nodes, self.power, self.batteries, self.sheds):
                found += part()
        return found

    def finite(self, value: object, where: str) -> Iterator[str]:
        """Every number is one that a site can have."""
        if isinstance(value, dict):
            for key, part in value.items():
                yield from self.finite(part, f"{where}.{key}")
        elif isinstance(value, list):
            for part in value:
                yield from self.finite(part, where)
        elif isinstance(value, float) and not abs(value) <= 1e18:
            yield f"{where} is {value}"

    def decided(self) -> Iterator[str]:
        ran = [a["job_id"] for a in self.plan["assignments"]]
        if len(set(ran)) != len(ran) or len(self.waits) != len(self.plan["waiting"]):
            yield "a job is decided twice"
        for job in self.jobs:
            if job not in ran and job not in self.waits:
                yield f"{job} is forgotten"
        for job in {*ran, *self.waits} - self.jobs.keys():
            yield f"{job} is no job"
        for job in set(ran) & self.waits.keys() & self.jobs.keys():
            if self.jobs[job].get("state") != "running" or self.waits[job]["code"] != "shed":
                yield f"{job} runs and waits"
        for job, data in self.jobs.items():
            stopped = data.get("state") == "running" and job not in ran
            if stopped and not data.get("preemptible") and self.waits.get(job, {}).get("code") != "shed":
                yield f"{job} may not be stopped"

    def mode_of(self, entry: dict) -> tuple[dict, dict] | None:
        kind = self.kinds.get(entry["node_type"])
        mode = next((m for m in kind["modes"] if m["name"] == entry["mode"]), None) if kind else None
        return (kind, mode) if kind and mode else None

    def of_class(self, job: dict, field: str, mode: dict, default: float) -> float:
        own = self.site.get("job_classes", {}).get(job.get("job_class", "default"), {})
        return own.get(field, {}).get(mode["name"], default)

    def idle_gpu_w(self, kind: dict) -> float:
        return kind["idle_power_w"] / kind["gpus"]

    def decisions(self) -> Iterator[str]:
        """Each job runs where, when and how it may, with the draw and for the time of its mode."""
        for entry in self.plan["assignments"]:
            job = self.jobs.get(entry["job_id"])
            if job is None:
                continue
            name, runs = job["job_id"], job.get("state") == "running"
            pair = self.mode_of(entry)
            if pair is None:
                yield f"{name}: no such mode"
                continue
            kind, mode = pair
            idle_w = self.idle_gpu_w(kind)
            due_w = idle_w + self.of_class(job, "draw", mode, 1.0) * (mode["gpu_power_w"] - idle_w)
            if abs(entry["gpu_power_w"] - due_w) > 1e-6 * due_w + 1e-9:
                yield f"{name}: draws {due_w}, not {entry['gpu_power_w']}"
            speed = self.of_class(job, "speed", mode, mode["speed"])
            slots = max(1, math.ceil(job["duration_s"] / speed / self.dt - 1e-9))
            length = entry["end_s"] - entry["start_s"]
            may_stop = runs and name in self.waits
            if length != slots * self.dt and not (may_stop and 0 < length < slots * self.dt):
                yield f"{name}: takes {slots} slots, not {length} s"
            if (entry["start_s"] - self.t0) % self.dt or not self.t0 <= entry["start_s"] < self.t0 + self.n * self.dt:
                yield f"{name}: starts off the grid"
            if job.get("halls") and entry["hall"] not in job["halls"]:
                yield f"{name}: may not use {entry['hall']}"
            if job.get("node_types") and entry["node_type"] not in job["node_types"]:
                yield f"{name}: may not use {entry['node_type']}"
            if job.get("sites") and self.site["name"] not in job["sites"]:
                yield f"{name}: its data may not be here"
            if not runs:
                early_s = max(job.get("submit_s", 0.0), job.get("earliest_s") or 0.0)
                if entry["start_s"] < early_s or self.s.get("starts_held"):
                    yield f"{name}: starts too early"
                if job.get("deadline_s") is not None and entry["end_s"] > job["deadline_s"]:
                    yield f"{name}: ends after its deadline"
            if bool(entry.get("running")) != runs:
                yield f"{name}: running is {entry.get('running')}"

    def nodes(self) -> Iterator[str]:
        """Gangs are whole and alone, jobs are on nodes that exist, and no node has more GPUs than it has."""
        used: dict[tuple[str, int], int] = {}
        owners: dict[tuple[str, int], set[tuple[str, bool, bool]]] = {}
        for entry in self.plan["assignments"]:
            job, kind = self.jobs.get(entry["job_id"]), self.kinds.get(entry["node_type"])
            if job is None or kind is None:
                continue
            name, runs = job["job_id"], job.get("state") == "running"
            own, gpus = [], 0
            for place in entry["placements"]:
                listed = names(place["nodes"])
                own += listed
                gpus += len(listed) * place["gpus_per_node"]
                for node in listed:
                    at = self.rack_of.get(node)
                    if at != place["rack"] or self.racks[at][0] != entry["hall"]:
                        yield f"{name}: {node} is not in {place['rack']} of {entry['hall']}"
                        continue
                    if self.racks[at][2]["node_type"] != entry["node_type"]:
                        yield f"{name}: {node} is no {entry['node_type']}"
                    if node in self.closed and not runs:
                        yield f"{name}: starts on {node}"
                    for slot in self.slots(entry):
                        used[node, slot] = used.get((node, slot), 0) + place["gpus_per_node"]
                        owner = name, job["gpus"] > kind["gpus"], runs
                        owners.setdefault((node, slot), set()).add(owner)
            if gpus != job["gpus"] or entry["gpus"] != job["gpus"] or len(set(own)) != len(own):
                yield f"{name}: {gpus} GPUs on {len(own)} nodes; needs {job['gpus']}"
            if not runs and len(own) != -(-job["gpus"] // kind["gpus"]):
                yield f"{name}: on {len(own)} nodes"
            if runs:
                wrong_place = job.get("hall") != entry["hall"] or entry["start_s"] != self.t0
                if wrong_place or (job.get("nodes") and sorted(own) != sorted(names(job["nodes"])[: job["gpus"]])):
                    yield f"{name}: runs and moves"
        for (node, slot), count in used.items():
            if count > self.kinds[self.racks[self.rack_of[node]][2]["node_type"]]["gpus"]:
                yield f"{node}: {count} GPUs in slot {slot}"
        for (node, slot), here in owners.items():
            starts_beside = any(gang for _, gang, _ in here) and not all(runs for _, _, runs in here)
            if len(here) > 1 and starts_beside:
                yield f"{node}: a gang is not alone in slot {slot}"

    def slots(self, entry: dict) -> range:
        first = (entry["start_s"] - self.t0) // self.dt
        last = -(-(entry["end_s"] - self.t0) // self.dt)
        return range(max(0, min(first, self.n)), max(0, min(last, self.n)))

    def rack_loads(self, entries: list[dict]) -> list[dict[str, float]]:
        """IT power of each rack per slot."""
        base = {}
        for zone, (_, _, rack) in self.racks.items():
            kind = self.kinds[rack["node_type"]]
            base[zone] = sum(
                0.0 if node in self.s.get("down_nodes", ()) else kind["max_power_w"]
                if node in self.s.get("stale_nodes", ()) else kind["idle_power_w"] for node in rack["nodes"]
            )  # fmt: skip
        loads = [dict(base) for _ in range(self.n)]
        for entry in entries:
            kind = self.kinds.get(entry["node_type"])
            if kind is None:
                continue
            gpu_w = max(0.0, entry["gpu_power_w"] - self.idle_gpu_w(kind))
            for place in entry["placements"]:
                if place["rack"] in self.racks:
                    open_nodes = sum(node not in self.closed for node in names(place["nodes"]))
                    for slot in self.slots(entry):
                        loads[slot][place["rack"]] += open_nodes * place["gpus_per_node"] * gpu_w
        return loads

    def members(self, zone: str, feeds: dict[str, dict]) -> set[str]:
        found = {r for r, (hall, row, _) in self.racks.items() if zone in (r, row, hall)}
        if zone in feeds:
            for part in feeds[zone]["members"]:
                found |= self.members(part, feeds)
            for name, feed in feeds.items():
                if feed.get("parent") == zone:
                    found |= self.members(name, feeds)
        return found

    def limits(self) -> dict[str, list[float]]:
        """The lowest limit in force of each zone per slot."""
        fixed = {self.site["name"]: self.site.get("power_limit_w")}
        for hall in self.site["halls"]:
            fixed[hall["zone"]] = hall.get("power_limit_w")
            for row in hall["rows"]:
                fixed[row["zone"]] = row.get("power_limit_w")
                fixed |= {rack["zone"]: rack.get("power_limit_w") for rack in row["racks"]}
        fixed |= {feed["zone"]: feed.get("power_limit_w") for feed in self.site.get("feeds", ())}
        found = {zone: [limit_w] * self.n for zone, limit_w in fixed.items() if limit_w is not None}
        for zone, series in self.site.get("budgets", {}).items():
            rows = []
            for slot in range(self.n):
                begin, end = self.t0 + slot * self.dt, self.t0 + (slot + 1) * self.dt
                steps = list(zip(series["times_s"], series["values"], strict=True))
                before = [value for at, value in steps if at <= begin] or [steps[0][1]]
                rows.append(min([before[-1], *(value for at, value in steps if begin < at < end)]))
            own = found.get(zone, [math.inf] * self.n)
            found[zone] = [min(a, b) for a, b in zip(own, rows, strict=True)]
        margins = self.s.get("margin_w", {})
        return {zone: [max(0.0, w - margins.get(zone, 0.0)) for w in row] for zone, row in found.items()}

    def meter_and_heat(self, hall: dict, loads: dict[str, float], slot: int) -> tuple[float, list]:
        """A hall's power at the meter, and (medium, heat, capacity) of its plants."""
        liquid = air = 0.0
        for row in hall["rows"]:
            for rack in row["racks"]:
                share = self.kinds[rack["node_type"]].get("liquid_fraction", 0.0)
                liquid += share * loads[rack["zone"]]
                air += (1 - share) * loads[rack["zone"]]
        it_w = liquid + air
        loss = hall.get("losses") or {}
        loss_w = loss.get("fixed_w", 0.0) + loss.get("linear", 0.0) * it_w + loss.get("quadratic_per_w", 0.0) * it_w**2
        served = {plant.get("serves", "all") for plant in hall.get("plants", ())}
        heats = {"all": it_w + loss_w} if "all" in served else {"liquid": liquid, "air": air + loss_w}
        power_w, told = it_w + loss_w, []
        for medium, heat_w in heats.items() if served else ():
            plants = [plant for plant in hall["plants"] if plant.get("serves", "all") == medium]
            caps = [self.capacity(plant, slot) for plant in plants]
            for plant, own in zip(plants, caps, strict=True):
                power_w += self.plant_w(plant, heat_w * (own / sum(caps) if sum(caps) else 1 / len(caps)), own, slot)
            told.append((medium, heat_w, sum(caps)))
        return power_w, told

    def air(self, slot: int) -> tuple[float, float]:
        if not self.s.get("dry_bulb_c"):
            return 20.0, 15.0
        return self.s["dry_bulb_c"][slot], self.s["wet_bulb_c"][slot]

    def capacity(self, plant: dict, slot: int) -> float:
        dry, wet = self.air(slot)
        if plant["kind"] == "dry_cooler":
            design = max(plant["supply_temp_c"] - plant["rated_ambient_c"], 0.1)
            return plant["capacity_w"] * min(1.0, max(0.0, (plant["supply_temp_c"] - dry) / design))
        if plant["kind"] == "tower_chiller" and not self.free(plant, wet):
            return plant["capacity_w"] * min(1.0, max(0.0, 1 - 0.01 * self.above(plant, wet)))
        return plant["capacity_w"]

    def plant_w(self, plant: dict, heat_w: float, capacity_w: float, slot: int) -> float:
        part = heat_w / capacity_w if capacity_w > 0 else float(heat_w > 0)
        moved_w = plant["pump_power_w"] + plant["fan_power_w"] * part**3
        wet = self.air(slot)[1]
        if plant["kind"] == "dry_cooler" or (plant["kind"] == "tower_chiller" and self.free(plant, wet)):
            return moved_w
        cop = plant["cop"]
        if plant["kind"] == "tower_chiller":
            cop *= max(0.2, 1 - 0.022 * self.above(plant, wet))
        return moved_w + capacity_w / cop * (part + part**2) / 2

    def condenser(self, wet: float) -> float:
        if wet <= APPROACH_K[0][0]:
            return wet + APPROACH_K[0][1]
        for (x0, y0), (x1, y1) in pairwise(APPROACH_K):
            if wet <= x1:
                return wet + y0 + (y1 - y0) * (wet - x0) / (x1 - x0)
        return wet + APPROACH_K[-1][1]

    def above(self, plant: dict, wet: float) -> float:
        return self.condenser(wet) - self.condenser(plant["rated_ambient_c"])

    def free(self, plant: dict, wet: float) -> bool:
        return plant["free_cooling"] and self.condenser(wet) + plant["approach_k"] <= plant["supply_temp_c"]

    def over(self, entries: list[dict], part: float = 0.0) -> Iterator[str]:
        """Limits that these entries break, by more than a part of the limit below it."""
        loads, idle = self.rack_loads(entries), self.rack_loads([])
        feeds = {feed["zone"]: feed for feed in self.site.get("feeds", ())}
        limits = self.limits()
        inside = {zone: self.members(zone, feeds) for zone in limits}
        given = {b["name"]: b["power_w"] for b in self.plan.get("storages", ())} if part == 0 else {}
        for slot in range(self.n):
            halls = [self.meter_and_heat(hall, loads[slot], slot) for hall in self.site["halls"]]
            none = [self.meter_and_heat(hall, idle[slot], slot) for hall in self.site["halls"]]
            for zone, row in limits.items():
                watts = sum(loads[slot][rack] for rack in inside[zone])
                least = sum(idle[slot][rack] for rack in inside[zone])
                if zone == self.site["name"]:
                    watts, least = sum(w for w, _ in halls), sum(w for w, _ in none)
                for store in self.site.get("storages", ()):
                    if store["kind"] == "battery" and store["name"] in given and self.carries(zone, store, feeds):
                        watts -= given[store["name"]][slot]
                if watts > max(row[slot] * (1 - part), least if part == 0 else 0.0) + SLACK_W:
                    yield f"{zone}: {watts:.0f} W in slot {slot}; the limit is {row[slot]:.0f}"
            for hall, (_, heats), (_, least_heats) in zip(self.site["halls"], halls, none, strict=True):
                for (medium, heat_w, most_w), (_, least_w, _) in zip(heats, least_heats, strict=True):
                    if heat_w > max(most_w * (1 - part), least_w if part == 0 else 0.0) + SLACK_W:
                        yield f"{hall['zone']}: {heat_w:.0f} W of heat ({medium}) in slot {slot} for {most_w:.0f}"

    def carries(self, zone: str, store: dict, feeds: dict[str, dict]) -> bool:
        at = store["zone"]
        while at is not None and at != self.site["name"]:
            if at == zone:
                return True
            at = feeds.get(at, {}).get("parent")
        return zone == self.site["name"]

    def power(self) -> Iterator[str]:
        yield from self.over(self.plan["assignments"])

    def batteries(self) -> Iterator[str]:
        known = {store["name"]: store for store in self.site.get("storages", ())}
        if sorted(known) != sorted(b["name"] for b in self.plan.get("storages", ())):
            yield "not every battery is planned once"
            return
        for entry in self.plan.get("storages", ()):
            store = known[entry["name"]]
            if len(entry["power_w"]) != self.n:
                yield f"{entry['name']}: has not one power per slot"
                continue
            held = min(
                max(float(self.s.get("stored_j", {}).get(entry["name"], store["start_j"])), 0), store["capacity_j"]
            )
            low = min(store["min_j"], held)
            for slot, watts in enumerate(entry["power_w"]):
                if not -store["charge_w"] - 1 <= watts <= store["discharge_w"] + 1:
                    yield f"{entry['name']}: {watts} W in slot {slot}"
                held -= self.dt * (watts if watts >= 0 else store["efficiency"] * watts)
                if not low - 100 <= held <= store["capacity_j"] + 100:
                    yield f"{entry['name']}: holds {held:.0f} J after slot {slot}"

    def sheds(self) -> Iterator[str]:
        """A job may not be shed where everything that runs holds every limit by far in its lowest modes."""
        shed = [job for job, w in self.waits.items() if w["code"] == "shed"]
        shed = [job for job in shed if self.jobs.get(job, {}).get("state") == "running"]
        running = [job for job in self.jobs.values() if job.get("state") == "running"]
        if not shed or not all(job.get("nodes") for job in running):
            return
        entries = [self.lowest(job) for job in running]
        if not any(True for _ in self.over(entries, 0.05)):
            yield f"{shed[0]} is shed without need"

    def lowest(self, job: dict) -> dict:
        nodes = names(job["nodes"])
        kind = self.kinds[job.get("node_type") or self.racks[self.rack_of[nodes[0]]][2]["node_type"]]
        mode = min(kind["modes"], key=lambda m: m["gpu_power_w"])
        each, more = divmod(job["gpus"], len(nodes))
        places = [{"rack": self.rack_of[node], "nodes": node, "gpus_per_node": each + (i < more)}
                  for i, node in enumerate(nodes) if node in self.rack_of]  # fmt: skip
        idle_w = self.idle_gpu_w(kind)
        watts = idle_w + self.of_class(job, "draw", mode, 1.0) * (mode["gpu_power_w"] - idle_w)
        speed = self.of_class(job, "speed", mode, mode["speed"])
        end_s = self.t0 + max(1, math.ceil(job["duration_s"] / speed / self.dt - 1e-9)) * self.dt
        return {"node_type": kind["name"], "gpu_power_w": watts, "placements": places, "start_s": self.t0,
                "end_s": end_s}  # fmt: skip


def faults(plan: dict) -> list[str]:
    """Return what is wrong with a plan by this physics."""
    return Judge(plan).faults()
