"""The shed service: inbox and HTTP endpoint feed one event manager, until SIGTERM."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from powerhall.plan.plan import read_plan
from powerhall.runtime.errors import Rejected
from powerhall.runtime.extras import EXIT_OK
from powerhall.runtime.log import Log
from powerhall.runtime.signals import ServiceSignals
from powerhall_optimizer.leases.plan_in_force import present_plan
from powerhall_optimizer.shed.event_manager import EventManager
from powerhall_optimizer.shed.http_endpoint import HttpEndpoint
from powerhall_optimizer.shed.inbox import SignalInbox
from powerhall_optimizer.shed.ladder import ladder
from powerhall_optimizer.shed.meter import baseline_w
from powerhall_optimizer.shed.open import ShedOptions, open_shedder
from powerhall_optimizer.shed.shedder import Outcome

__all__ = ["ServiceOptions", "serve"]

_LOOK_S = 0.1


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


def serve(args: ServiceOptions, shed: ShedOptions) -> int:
    """Run the service; everything that it needs is checked before the first event."""
    if args.serve is not None and args.token_file is None:
        raise Rejected("shed: --serve: needs --token-file")
    if bool(args.tls_cert) != bool(args.tls_key):
        raise Rejected("shed: --tls-cert and --tls-key go together")
    log = Log()
    first = read_plan(args.plan)
    site = first.snapshot.site.name
    shedder = open_shedder(shed, first)

    def act(limit_w: float | None, share: float, end_s: float, within_s: float) -> Outcome:
        now_s = time.time()
        plan = present_plan(args.plan, now_s)
        steps = ladder(plan, now_s)
        base_w = baseline_w(shedder.store, site, steps.power_w, now_s) if share else math.inf
        target_w = min(math.inf if limit_w is None else limit_w, base_w * (1.0 - share))
        return shedder.act(plan, steps, target_w, until_s=end_s, within_s=within_s)

    manager = EventManager(args.state, args.events, act, log)
    folder = None if args.watch is None else SignalInbox(args.watch, site, manager.receive, log)
    endpoint = None
    if args.serve is not None and args.token_file is not None:
        endpoint = HttpEndpoint(args.serve, args.token_file, manager, site, log, cert=args.tls_cert, key=args.tls_key)
        endpoint.start()
    with ServiceSignals() as signals:
        log.info("shed_ready", site=site, watch=args.watch or "no", serve=args.serve or "no", plan=first.plan_id[:12])
        while not signals.stopped:
            if folder is not None:
                folder.look(time.time())
            manager.tick()
            signals.wait(_LOOK_S)
        if endpoint is not None:
            endpoint.close()
        if shedder.store is not None:
            shedder.store.close()
    return EXIT_OK
