"""One episode: machines, faults by seed, and the judgement. Prints one JSON object; 0 violations end with exit code 0.

begin     every service starts; some seeds find a lost GPU, a missing key or a damaged memory at the first start
faults    `FAULTS_S` seconds in which the planner grants short leases and faults begin and end at random
settle    all faults have ended; within `RECOVER_S` every process runs by itself, fresh leases are in force on the
          GPUs, and points of every node reach the store
quiet     no lease is granted; the last one runs out
stop      services stop in order; the limits found at the begin are back
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from chaos import books, plans
from chaos.faults import FAULTS, Ending, Notes, damage_owned, gpu, repair_disks
from chaos.judge import Facts, Violation, judge
from chaos.mutants import PLANNER
from chaos.observer import Observer
from chaos.planner import Planner
from chaos.supervisor import Service, tree
from chaos.world import SITE_KEY, World, build_world

FAULTS_S = 7.0
RECOVER_S = 20.0
LONGEST_S = 150.0
"""The longest that a recovery may take on a machine that is busy with other work."""
GRANT_EVERY_S = 1.6
_TICK_S = 0.05
_STOP_S = 20.0
_TRACEBACK = re.compile(r"Traceback \(most recent.*?\n(\w[^\n]*)\n", re.DOTALL)


@dataclass
class Episode:
    """The loop: supervisor, observer, planner and faults in turn, twenty times a second."""

    world: World
    dice: random.Random
    planner: Planner
    notes: Notes
    observer: Observer
    is_calm: bool = False
    violations: list[Violation] = field(default_factory=list)
    endings: list[tuple[float, Ending]] = field(default_factory=list)
    start_s: float = 0.0
    recovered_s: float = 0.0
    _looked_s: float = 0.0
    _granted_s: float = 0.0
    _cpu_s: float = 0.0

    def run(self) -> None:
        """Run all phases."""
        self._begin()
        self._calm() if self.is_calm else self._faults()
        self._settle()
        self._quiet()
        self._stop()

    def _turn(self, *, grants: bool = False, span: str | None = None) -> None:
        now_s = time.monotonic()
        for service in self.world.services:
            service.poll()
        self.planner.poll()
        if now_s - self._looked_s >= 0.1 - _TICK_S / 2:
            self._looked_s = now_s
            self.observer.look({name: _pids(node.capper) for name, node in self.world.nodes.items()})
            if len(self.observer.samples) % 5 == 0:
                for service in self.world.services:
                    service.measure()
        for entry in [entry for entry in self.endings if entry[0] <= now_s]:
            self.endings.remove(entry)
            entry[1].heal()
        if grants and now_s - self._granted_s >= GRANT_EVERY_S:
            self._granted_s = now_s
            self.planner.start(span)
        time.sleep(max(0.0, _TICK_S - (time.monotonic() - now_s)))

    def _begin(self) -> None:
        world = self.world
        world.store.start()
        deadline_s = time.monotonic() + 20.0
        while True:
            try:
                books.ask(f"CREATE DATABASE {books.DATABASE}")
                break
            except (OSError, KeyError):
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.02)
        self.planner.new_plan(self.planner.fitting_modes())
        if self.dice.random() < 0.25 and not self.is_calm:
            self._draw(self.dice.choice([gpu, gpu, damage_owned]))
        self.start_s = time.monotonic()
        for service in world.services[1:]:
            service.start()

    def _draw(self, fault) -> None:
        told, now_s = len(self.notes.lines), time.monotonic()
        ending = fault(self.world, self.dice, self.notes)
        at_s = now_s - (self.start_s or now_s)
        self.notes.lines[told:] = [f"{at_s:5.1f} s {line}" for line in self.notes.lines[told:]]
        self.endings.append((time.monotonic() + ending.after_s, ending))

    def _calm(self) -> None:
        """No faults, but plans that move the budget from node to node: for broken variants, and as a control."""
        nodes = self.planner.nodes
        moves = [{nodes[-1]: "full", nodes[0]: "eco"}, {nodes[0]: "full"}, {nodes[-1]: "full"}]
        span = "60s" if self.planner.mutant in PLANNER else "8s"  # long enough to meet the next plan's leases
        for move in moves:
            self.planner.new_plan(move if len(nodes) > 2 else self.planner.fitting_modes())
            runs, begin_s = len(self.planner.runs), time.monotonic()
            while time.monotonic() - begin_s < 15.0 and not [run for run in self.planner.runs[runs:] if run.code == 0]:
                self._turn(grants=True, span=span)

    def _faults(self) -> None:
        times = sorted(self.dice.uniform(0.3, FAULTS_S) for _ in range(self.dice.randrange(3, 8)))
        while time.monotonic() - self.start_s < FAULTS_S:
            while times and time.monotonic() - self.start_s > times[0]:
                times.pop(0)
                if self.dice.random() < 0.3:
                    told = len(self.notes.lines)
                    self.planner.fault()
                    self.notes.lines[told] = f"{time.monotonic() - self.start_s:5.1f} s {self.notes.lines[told]}"
                else:
                    self._draw(self.dice.choices(list(FAULTS), list(FAULTS.values()))[0])
            self._turn(grants=True)
        for _, ending in self.endings:
            ending.heal()
        self.endings.clear()
        repair_disks(self.world)
        self.planner.resume()
        self.world.planner_offset_s = 0.0

    def _settle(self) -> None:
        self.notes.lines.append(f"{time.monotonic() - self.start_s:5.1f} s all faults have ended")
        modes = self.planner.fitting_modes()
        self.world.events.unlink(missing_ok=True)
        self.planner.new_plan(modes, slots=60)
        begin_s, true_s = time.monotonic(), self.world.true_s()
        starved_s = self._starved_s()
        missing = ["everything"]
        while time.monotonic() - begin_s < min(LONGEST_S, self._patience_s(true_s) + self._starved_s() - starved_s):
            self._turn(grants=True, span=f"{3.0 + 2 * self.planner.slow_s:.0f}s")
            if len(self.observer.samples) % 3 == 0:
                missing = self._missing(modes)
                if not missing:
                    self.recovered_s = time.monotonic() - begin_s
                    return
        waited_s = time.monotonic() - begin_s
        self._tell("alive", f"{waited_s:.0f} s after the last fault: {'; '.join(missing)}")

    def _patience_s(self, since_s: float) -> float:
        """Return the time for recovery; what the machine is too busy for is added."""
        return RECOVER_S + self.planner.late_s(since_s)

    def _starved_s(self) -> float:
        return max(self.observer.samples[-1].starved_s.values()) if self.observer.samples else 0.0

    def _missing(self, modes: dict[str, str]) -> list[str]:
        """Say what has not recovered."""
        gone = [s.name for s in self.world.services if s.process is None or not s.is_ready]
        gone += [s.name for s in self.world.services if s.process is not None and time.monotonic() - s.started_s < 1.0]
        found = [f"{name} does not run" for name in gone]
        for name, node in self.world.nodes.items():
            want_w = plans.LIMITS_W[modes[name]] if name in modes else plans.SAFE_W
            limits_w = node.gpus.limits_w()
            if any(abs(limit_w - want_w) > 1.0 for limit_w in limits_w):
                found.append(f"{name} holds {[round(w) for w in limits_w]} W; its lease is for {want_w:.0f} W")
        return found or self._silent()

    def _silent(self) -> list[str]:
        try:
            rows = books.ask("SELECT last(power_w) FROM gpu WHERE time > now() - 6s GROUP BY node")
        except (OSError, KeyError, ValueError) as error:
            return [f"the store does not answer: {error}"]
        seen = {str(row["node"]) for row in rows}
        return [f"no points of {name} in the store" for name in self.world.nodes if name not in seen]

    def _quiet(self) -> None:
        while self.planner.runs and self.planner.runs[-1].code is None:
            self._turn()
        self._books = self._read_books()
        last_s = max([grant.end_s for grant in self._books], default=0.0)
        until_s = min(last_s + 2.5, time.monotonic() + 12.0)
        while time.monotonic() < until_s:
            self._turn()

    def _read_books(self) -> list:
        runs = [(run.start_s, run.offset_s) for run in self.planner.runs]
        for _ in range(20):
            try:
                return books.grants(SITE_KEY, tuple(self.world.nodes), runs, self.world.zero_s, self.world.shown)
            except (OSError, KeyError) as error:
                last = error
                self._turn()
        self._tell("harness", f"the store cannot be read: {last}")
        return []

    def _stop(self) -> None:
        world, stop_s = self.world, time.monotonic()
        for service in world.services[1:]:
            service.stop()
        while not all(service.is_stopped for service in world.services[1:]):
            if time.monotonic() - stop_s > _STOP_S:
                self._tell("restored", "services do not stop")
                break
            self._turn()
        for name, node in world.nodes.items():
            limits_w, touched = node.gpus.limits_w(), {number for at, number, _ in self.notes.touched if at == name}
            lost = {plans.SAFE_W} if name in self.notes.memory_lost else set()
            pairs = enumerate(zip(limits_w, node.found_w, strict=True))
            if [n for n, (w, found_w) in pairs if n not in touched and min(abs(w - a) for a in {found_w} | lost) > 1.0]:
                self._tell(
                    "restored", f"{name} at {[*map(round, limits_w)]} W; found were {[*map(round, node.found_w)]}"
                )
        self._judge(stop_s)

    def _judge(self, stop_s: float) -> None:
        frozen = {name: [] for name in self.world.nodes}
        for name, node in self.world.nodes.items():
            frozen[name] = [(a, b) for a, b in self.notes.frozen.get(node.capper.name, [])]
        facts = Facts(
            samples=self.observer.samples,
            grants=self._books,
            zones=self.planner.zones(),
            safe_w=plans.SAFE_W,
            extra_w=plans.EXTRA_W,
            start_s=self.start_s,
            stop_s=stop_s,
            begun_s=self._begun_s(),
            frozen=frozen,
            touched=self.notes.touched,
            plan_order=self.planner.order,
            plan_end_s=self.planner.ends_s,
        )
        self.violations += judge(facts)
        for service in self.world.services:
            self._deaths(service)
            if service.most_bytes > service.unit.memory_bytes:
                self._tell("memory", f"{service.name} had {service.most_bytes >> 20} MiB")
        for path in sorted(self.world.folder.rglob("*.log")):
            if found := _TRACEBACK.findall(path.read_text(errors="replace")):
                self._tell("traceback", f"{path.name}: {found[-1][:200]}")

    def _begun_s(self) -> dict[str, float]:
        """Return per node the death of the last capper that was killed before any had set the safe limits."""
        found = {}
        for name, node in self.world.nodes.items():
            well = (s.time_s for s in self.observer.samples if max(s.limits_w[name]) <= plans.SAFE_W + 1.0)
            first_s = min(next(well, float("inf")), self.start_s + 6.0)
            is_bad = self._is_owned_bad(node.capper)  # without its settings no capper begins
            ends = [d.time_s for d in node.capper.deaths if (d.asked or is_bad) and d.time_s < first_s]
            found[name] = max([node.capper.begun_s, *ends])
        return found

    def _deaths(self, service: Service) -> None:
        """A capper ends when it is told to; for a driver that is gone, another capper, and what its owner damaged."""
        node = service.name.partition("-")[0]
        spans = self.notes.second.get(node, [])
        deaths = [death for death in service.deaths if not death.asked and death.code not in {0, -9}]
        alone = [d for d in deaths if d.code != 1 or not any(a <= d.time_s <= b for a, b in spans)]
        if not service.name.endswith("-capper") or not alone:
            return
        if node not in self.notes.driver_gone and not self._is_owned_bad(service):
            text = f"{service.name} ended by itself with {alone[0].code}, {len(alone)} times"
            self._tell("alive", text, alone[0].time_s)

    def _is_owned_bad(self, service: Service) -> bool:
        """Return whether key or settings of the node were damaged: what then ends at its start is no fault of input."""
        node = service.name.partition("-")[0]
        return any(
            f"damaged {node}/{file}" in line for line in self.notes.lines for file in ("node.key", "capper.toml")
        )

    def _tell(self, rule: str, text: str, time_s: float | None = None) -> None:
        self.violations.append(Violation(rule, time.monotonic() if time_s is None else time_s, text))


def _pids(service: Service) -> list[int]:
    running = [service.process] if service.process is not None else []
    return [pid for process in (*running, *service.post) for pid in tree(process.pid)]


def run_episode(seed: int, folder: Path, mutant: str = "", *, is_calm: bool = False) -> dict[str, object]:
    """Run the episode of a seed in this process's name spaces; return what `run.py` prints and keeps."""
    dice = random.Random(seed)
    names = tuple(f"n{number + 1}" for number in range(dice.choices([1, 2, 3], [4, 4, 2])[0]))
    if mutant or is_calm:
        names, is_calm = ("n1", "n2", "n3"), True
    notes = Notes()
    begin = time.monotonic(), os.times()
    world = build_world(folder, names, dice, mutant=mutant)
    observer = Observer({name: node.gpus for name, node in world.nodes.items()})
    episode = Episode(world, dice, Planner(world, dice, notes, mutant), notes, observer, is_calm)
    episode.run()
    after = os.times()
    return {
        "seed": seed,
        "nodes": len(names),
        "violations": [asdict(v) | {"time_s": round(v.time_s - episode.start_s, 2)} for v in episode.violations],
        "faults": notes.lines,
        "leases": len(episode._books),
        "recovered_s": round(episode.recovered_s, 1),
        "late_s": round(episode.observer.late_s, 2),
        "starved_s": round(episode._starved_s(), 2),
        "wall_s": round(time.monotonic() - begin[0], 1),
        "cpu_s": round(sum(after[:4]) - sum(begin[1][:4]), 1),
        "most_mib": {service.name: service.most_bytes >> 20 for service in world.services},
    }


def keep(world_folder: Path, out: Path, samples) -> None:
    """Copy logs and small files of an episode that broke a promise."""
    out.mkdir(parents=True, exist_ok=True)
    for path in world_folder.rglob("*"):
        if path.is_file() and path.suffix in {".log", ".json", ".toml"} and path.stat().st_size < 1 << 20:
            shutil.copy(path, out / "_".join(path.relative_to(world_folder).parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True, help="empty folder; a tmpfs is mounted on it")
    parser.add_argument("--keep", type=Path, help="where logs go if a promise is broken")
    parser.add_argument("--mutant", default="", help="a broken variant of mutants.py")
    parser.add_argument("--calm", action="store_true", help="no faults, only plans that change")
    arguments = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    result = run_episode(arguments.seed, arguments.folder, arguments.mutant, is_calm=arguments.calm)
    if result["violations"] and arguments.keep:
        keep(arguments.folder, arguments.keep, None)
        (arguments.keep / "result.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result), flush=True)
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
