"""Every code of a waiting job has a text for people and a row in the guide."""

import re

import pytest

from powerhall.plan.plan import WaitCode
from powerhall_optimizer.placement.placement_reasons import PlacementCause, PlacementReason
from powerhall_optimizer.planning import texts
from powerhall_optimizer.planning.wait_reasons import Alternative, Shortage, WaitReason
from powerhall_optimizer.problem.no_option import NoOption, NoOptionCause
from powerhall_optimizer.problem.resources import Resource, ResourceKind

NO_OPTIONS = [NoOption(cause, why="of a reason") for cause in NoOptionCause if cause is not NoOptionCause.AT_NO_SITE]
NO_OPTIONS.append(NoOption(NoOptionCause.AT_NO_SITE, by_site=(("s", NoOption(NoOptionCause.TOO_LARGE)),)))
PLACEMENTS = [PlacementReason(cause, hall="h", gpus=8, site="s") for cause in PlacementCause]


def when(slot: int) -> str:
    return f"slot {slot}"


def short_of(*resources: Resource) -> WaitReason:
    """The reason of a job that is short of these resources; without any it is not worth its cost."""
    shortages = tuple(Shortage(resource, 8, 0, 1) for resource in resources)
    return WaitReason(None, (Alternative(None, 0, 0, 1, 1.0, shortages),), 1.0, None)  # type: ignore[arg-type]


SHORT = [short_of(), *(short_of(Resource("h", kind)) for kind in ResourceKind)]
TEXTS: list[tuple[WaitCode, str]] = [
    *((found.code, texts.no_option_text(found)) for found in NO_OPTIONS),
    *((reason.code, texts.left_out_text(reason)) for reason in PLACEMENTS),
    *((reason.code, texts.wait_text(reason, when)) for reason in SHORT),
    (WaitCode.CAPACITY, texts.not_explained_text()),
    (WaitCode.SHED, texts.shed_text([Resource("h")], None)),
    (WaitCode.PREEMPTED, texts.preempted_text("short of power")),
]


@pytest.mark.parametrize("code", WaitCode)
def test_every_code_has_a_text(code):
    found = [text for of_code, text in TEXTS if of_code is code]
    assert found
    assert all(text and "\n" not in text for text in found)


@pytest.mark.parametrize("code", WaitCode)
def test_every_code_has_a_row_in_the_guide(root, code):
    assert re.search(rf"^\|.*`{code}`.*\|", section(root), re.MULTILINE)


def test_the_guide_names_no_code_that_there_is_not(root):
    named = re.findall(r"`(\w+)`(?=[^|\n]*\|[^|\n]*\|$)", section(root), re.MULTILINE)
    assert set(named) == set(WaitCode)


def section(root) -> str:
    text = (root / "docs/guide/optimizer.md").read_text()
    return text.partition("\n### Codes of waiting jobs\n")[2].partition("\n#")[0]
