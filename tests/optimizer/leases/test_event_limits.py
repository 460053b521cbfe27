"""Events that came after the plan, as limits of its snapshot."""

import pytest

from powerhall.plan.plan import Snapshot
from powerhall.runtime.errors import Rejected
from powerhall.site.curtailment import Event
from powerhall_optimizer.leases.event_limits import with_event_limits
from rigs.plans import small_site

SNAPSHOT = Snapshot(0, 0, 300, 4, small_site(["n1"], power_limit_w=50_000.0), ())


def test_an_event_lowers_the_budget_of_its_zone():
    site = with_event_limits(SNAPSHOT, [Event("plant", 300.0, 600.0, 20_000.0)]).site
    assert site.budgets["plant"].slots(0, 300, 4) == (50_000.0, 20_000.0, 50_000.0, 50_000.0)


def test_an_event_of_a_zone_that_the_site_does_not_have_is_refused_in_one_line():
    with pytest.raises(Rejected, match="events: zone: 'elsewhere': must be a zone of the plan's site 'plant'"):
        with_event_limits(SNAPSHOT, [Event("elsewhere", 300.0, 600.0, 20_000.0)])
