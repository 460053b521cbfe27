"""The shed service: inbox and HTTP endpoint feed one event manager, until SIGTERM.

Acting on an event may take as long as its deadline; the inbox is read and requests are answered meanwhile, in threads
of their own. Whatever goes wrong in one pass of a loop is an alarm, and the next pass comes.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from powerhall.plan.snapshot import Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.log import Log
from powerhall.runtime.signals import ServiceSignals
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.health import Health
from powerhall_optimizer.shed.http_endpoint import HttpEndpoint
from powerhall_optimizer.shed.inbox import SignalInbox
from powerhall_optimizer.shed.kept_plan import KeptPlan
from powerhall_optimizer.shed.ladder import ladder
from powerhall_optimizer.shed.meter import baseline_w
from powerhall_optimizer.shed.open import ShedOptions, open_shedder
from powerhall_optimizer.shed.shedder import Outcome
from powerhall_optimizer.shed.signals import Reduction

__all__ = ["ServiceOptions", "serve"]

_LOOK_S = 0.1
_PLAN_S = 10.0
"""How often the plan is looked at for the health of the service."""
_SILENT_S = 10.0


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """Options of the command line for the service: plan, state and events files, signal folder, HTTP address."""

    plan: Path
    state: Path
    events: Path | None
    watch: Path | None
    serve: str | None
    token_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    health: str | None = None
    allow_http: bool = False


def serve(args: ServiceOptions, shed: ShedOptions) -> int:
    """Run the service; everything that it needs is checked before the first event."""
    _check(args)
    log = Log()
    kept = KeptPlan(args.plan, log)
    first = kept.plan
    site, zone = first.snapshot.site.name, first.snapshot.zone
    shedder = open_shedder(shed, first)

    health = Health()

    def act(limit_w: float | None, reduction: Reduction | None, end_s: float, within_s: float) -> Outcome:
        now_s = time.time()
        plan = kept.present(now_s)
        health.note("plan", kept.problem)
        steps = ladder(plan, now_s)
        own_w = None
        if reduction is not None:
            own_w = reduction.limit_w(baseline_w(shedder.store, site, steps.power_w, now_s))
        target_w = min(math.inf if watts is None else watts for watts in (limit_w, own_w))
        outcome = shedder.act(plan, steps, target_w, until_s=end_s, within_s=within_s, must_yield=must_yield)
        return msgspec.structs.replace(outcome, own_w=own_w)

    def must_yield() -> bool:
        return signals.stopped or manager.must_yield()

    manager = EventManager(args.state, args.events, act, log)
    inbox = None if args.watch is None else SignalInbox(args.watch, site, manager.receive, log, zone)
    endpoint = _endpoint(args, manager, first.snapshot, log, health)
    with ServiceSignals() as signals:
        log.info("shed_ready", site=site, watch=args.watch or "no", serve=args.serve or "no", plan=first.plan_id[:12])
        stop = threading.Event()
        watcher = None if inbox is None else _Loop("inbox", partial(_look, inbox, manager), stop, health, log)
        if watcher is not None:
            watcher.start()
        looked_s = -math.inf
        while not signals.stopped:
            _guarded("events", manager.tick, health, log)
            if time.monotonic() - looked_s >= _PLAN_S:
                looked_s = time.monotonic()
                kept.look(time.time())
                health.note("plan", kept.problem)
            health.note("clock", manager.clock_problem)
            health.note("state", "" if manager.is_saved else "the state or the events file cannot be written")
            signals.wait(_LOOK_S)
        stop.set()
        if watcher is not None:
            watcher.join(5)
        if endpoint is not None:
            endpoint.close()
        if shedder.store is not None:
            shedder.store.close()
    return EXIT_OK


def _check(args: ServiceOptions) -> None:
    """Raise Rejected for options that do not go together."""
    if args.serve is not None and args.token_file is None:
        raise Rejected("shed: --serve: needs --token-file")
    if args.serve is None and (args.health is not None or args.allow_http):
        raise Rejected("shed: --health and --allow-http: need --serve")
    if bool(args.tls_cert) != bool(args.tls_key):
        raise Rejected("shed: --tls-cert and --tls-key go together")


def _endpoint(
    args: ServiceOptions, manager: EventManager, snapshot: Snapshot, log: Log, health: Health
) -> HttpEndpoint | None:
    if args.serve is None or args.token_file is None:
        return None
    endpoint = HttpEndpoint(
        args.serve,
        args.token_file,
        manager,
        snapshot.site.name,
        log,
        cert=args.tls_cert,
        key=args.tls_key,
        health=health,
        health_address=args.health,
        allow_http=args.allow_http,
        zone=snapshot.zone,
    )
    endpoint.start()
    return endpoint


def _look(inbox: SignalInbox, manager: EventManager) -> str:
    inbox.look(manager.now_s())
    return inbox.problem


class _Loop(threading.Thread):
    """Repeats one call in a thread until `stop`, and reports that it is alive."""

    def __init__(
        self, name: str, call: Callable[[], str | None], stop: threading.Event, health: Health, log: Log
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._call, self._stop_event, self._health, self._log = call, stop, health, log

    def run(self) -> None:
        """Repeat."""
        while not self._stop_event.wait(_LOOK_S):
            _guarded(self.name, self._call, self._health, self._log)
            self._health.beat(self.name, _SILENT_S)


def _guarded(part: str, call: Callable[[], str | None], health: Health, log: Log) -> None:
    """Call and note the problem that it returns; what it raises is logged and noted, and does not end the service."""
    try:
        problem = call()
    except Exception as error:  # noqa: BLE001 - the service must outlive any defect and any fault of a disk
        log.warning("shed_defect", key=part, part=part, detail=repr(error))
        health.note(part, repr(error))
    else:
        health.note(part, problem or "")
