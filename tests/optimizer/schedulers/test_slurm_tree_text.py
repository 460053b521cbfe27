"""The power tree as text, against rules of Slurm 26.05 that are written here anew: no Slurm is needed."""

import random
import re

import pytest

from powerhall.hostlist import compress, expand
from powerhall.runtime.errors import Rejected
from powerhall.site.topology import Feed, Hall, Losses, Mode, NodeType, Rack, RackRow, Site
from powerhall_optimizer.schedulers.slurm.power_tree import power_tree
from powerhall_optimizer.schedulers.slurm.resources_file import file_text, merged, resource_text
from powerhall_optimizer.schedulers.slurm.slurm_settings import SlurmSettings
from powerhall_optimizer.schedulers.slurm.tokens import parse_config, parse_tokens
from rigs.plans import greedy_plan, small_site

SETTINGS = SlurmSettings()


def random_site(draw):
    """Halls with rows and racks of any size, limits here and there, feeds that nest or cross."""
    kind = NodeType("hgx", "h200", 8, 800.0, 10_200.0, 6_000.0, 0.8, (Mode("fast", "power_limit", 1250.0, 1.0),))
    names, halls = iter(f"gn{number:03d}" for number in range(1, 1000)), []

    def limit(nodes):
        return draw.choice((None, nodes * draw.uniform(2_000.0, 11_000.0)))

    for hall in range(draw.randint(1, 3)):
        rows = []
        for row in range(draw.randint(1, 3)):
            racks = []
            for rack in range(draw.randint(1, 3)):
                nodes = tuple(next(names) for _ in range(draw.choice((1, 2, 4, 8))))
                racks.append(Rack(f"h{hall}/r{row}/k{rack}", "hgx", nodes, limit(len(nodes))))
            rows.append(RackRow(f"h{hall}/r{row}", tuple(racks), limit(sum(len(rack.nodes) for rack in racks))))
        count = sum(len(rack.nodes) for row in rows for rack in row.racks)
        halls.append(Hall(f"h{hall}", tuple(rows), (), Losses(), limit(count)))
    zones = [row.zone for hall in halls for row in hall.rows] + [hall.zone for hall in halls]
    zones += [rack.zone for hall in halls for rack in hall.racks()]
    feeds = tuple(
        Feed(f"f{number}", tuple(draw.sample(zones, draw.randint(1, min(3, len(zones))))), draw.uniform(1e4, 1e5))
        for number in range(draw.randint(0, 3))
    )
    return Site("plant", tuple(halls), {"hgx": kind}, feeds=feeds, power_limit_w=draw.choice((None, 150_000.0)))


def zone_nodes(site):
    """Return the nodes of every zone, found without the index."""
    found = {site.name: set()}
    for hall in site.halls:
        for row in hall.rows:
            for rack in row.racks:
                for zone in (site.name, hall.zone, row.zone, rack.zone):
                    found.setdefault(zone, set()).update(rack.nodes)
    return found | {feed.zone: set().union(*(found[member] for member in feed.members)) for feed in site.feeds}


def read_layers(text):
    """Read layers from the file's text."""
    found = re.findall(r'- nodes:  # (.*)\n        - "(.*)"\n      count: (\d+)\n', text)
    assert len(found) == text.count("- nodes:")
    return [(zones, frozenset(expand(nodes)), int(count)) for zones, nodes, count in found]


@pytest.mark.parametrize("seed", range(300))
def test_slurm_takes_the_tree_of_any_site_and_no_share_is_more_than_its_limit(seed):
    draw = random.Random(seed)
    site = random_site(draw)
    where = zone_nodes(site)
    known = [node for node in where[site.name] if draw.random() < 0.95] or sorted(where[site.name])
    plan = greedy_plan(site, [], start_s=0, slot_s=60, budget_w=[150_000] * 10)
    tree = power_tree(plan, SETTINGS, known, 0.0)
    text = resource_text(tree, "kw")
    layers = read_layers(text)
    sets = [nodes for _, nodes, _ in layers]
    assert len(set(sets)) == len(sets), "no two layers have the same nodes"
    root = max(sets, key=len)
    assert root == set(known)
    depths = {len([one for one in sets if node in one]) for node in known}
    assert len(depths) == 1, "all nodes lie in as many layers"
    for one in sets:
        assert all(one <= other or other <= one or not one & other for other in sets)
    limits = {feed.zone: feed.power_limit_w for feed in site.feeds} | {site.name: 150_000.0}
    for hall in site.halls:
        limits[hall.zone] = hall.power_limit_w
        for row in hall.rows:
            limits[row.zone] = row.power_limit_w
            limits |= {rack.zone: rack.power_limit_w for rack in row.racks}
    due = {}
    for zone, limit_w in limits.items():
        nodes = frozenset(where[zone] & set(known))
        if limit_w is not None and nodes and zone not in tree.left:
            room = max(0, int((limit_w - 800 * len(where[zone])) // 1000))
            due[nodes] = min(due.get(nodes, 10**9), room, 10 * len(where[zone]))
    counts = {nodes: count for _, nodes, count in layers}
    assert {nodes: counts.get(nodes) for nodes in due} == due
    for zone in tree.left:  # it crosses another one, or cannot have the depth of the others
        assert zone in limits


def test_a_rack_row_and_hall_of_the_same_nodes_are_one_layer_with_the_lowest_count():
    kind = NodeType("hgx", "h200", 8, 0.0, 10_200.0, 6_000.0, 0.8, (Mode("fast", "power_limit", 1250.0, 1.0),))
    rack = Rack("h/r/k", "hgx", ("gn1", "gn2"), 12_000.0)
    hall = Hall("h", (RackRow("h/r", (rack,), 11_000.0),), (), Losses(), 15_000.0)
    plan = greedy_plan(Site("plant", (hall,), {"hgx": kind}), [], start_s=0, slot_s=60, budget_w=[20_000] * 3)
    layers = read_layers(resource_text(power_tree(plan, SETTINGS, ["gn1", "gn2"], 0.0), "kw"))
    assert layers == [("plant, h, h/r, h/r/k", {"gn1", "gn2"}, 11)]


def test_a_cut_within_the_next_round_counts_already_and_closes_what_has_no_room_for_a_node():
    site = small_site([f"gn{number}" for number in range(1, 9)], power_limit_w=60_000.0)
    plan = greedy_plan(site, [], start_s=0, slot_s=300, budget_w=[60_000, 30_000, 4_000, 4_000, 60_000])
    known = [f"gn{number}" for number in range(1, 9)]

    def root(now_s):
        tree = power_tree(plan, SETTINGS, known, now_s)
        return max(tree.layers, key=lambda layer: len(layer.nodes)).count, len(tree.closed), tree.closed_until_s

    assert root(-400.0) == (60, 0, 0)
    assert root(10.0) == (30, 0, 0)
    assert root(310.0) == (10, 8, 1200), "less than that, and Slurm would hold what waits"
    assert root(1210.0) == (60, 0, 0)


def test_the_text_of_others_stays_and_the_same_name_is_refused():
    plan = greedy_plan(small_site(["gn1", "gn2"]), [], start_s=0, slot_s=60, budget_w=[60_000] * 3)
    ours = resource_text(power_tree(plan, SETTINGS, ["gn1", "gn2"], 0.0), "kw")
    assert merged("", ours, "kw", "f") == "---\n" + ours
    theirs = "---\n- resource: desks\n  mode: MODE_1\n"
    first = merged(theirs, ours, "kw", "f")
    assert first == theirs + ours
    assert merged(first, ours, "kw", "f") == first
    assert merged(first, ours.replace("count: 20", "count: 7"), "kw", "f").count("powerhall begin") == 1
    with pytest.raises(Rejected, match="f: resource: 'kw': must not define kw"):
        merged("- resource: 'kw'\n", ours, "kw", "f")


def test_files_that_are_no_text_are_one_error(tmp_path):
    assert file_text(tmp_path / "none") == ""
    (tmp_path / "bad").write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match="is no UTF-8"):
        file_text(tmp_path / "bad")


def test_what_scontrol_says_decides_the_mode():
    flat = "LicenseName=kw Total=60 Used=0 Free=60 Reserved=0 Remote=no\nLicenseName=kw2 Total=9 Used=0\n"
    layered = (
        "LicenseName=cool_kw Total=200 Used=0 Free=200 Reserved=0 Remote=no\n"
        "LicenseName=kw Total=30 Used=0 Free=30 Reserved=0 Remote=no Nodes=gn[01-04] Mode=3\n"
        "LicenseName=kw Total=50 Used=0 Free=50 Reserved=0 Remote=no Nodes=gn[01-08] Mode=3\n"
    )
    assert (parse_tokens(flat, "kw").total, parse_tokens(flat, "kw").is_tree) == (60, False)
    assert (parse_tokens(layered, "kw").total, parse_tokens(layered, "kw").is_tree) == (50, True)
    assert {compress(sorted(nodes)): n for nodes, n in parse_tokens(layered, "kw").layers.items()} == {
        "gn[01-04]": 30,
        "gn[01-08]": 50,
    }
    assert parse_tokens("", "kw").total == 0
    new = parse_config("SLURM_CONF              = /etc/slurm/slurm.conf\nSLURM_VERSION           = 26.05.5\n")
    assert (new.folder, new.has_tree) == ("/etc/slurm", True)
    assert not parse_config("SLURM_VERSION           = 25.05.1\n").has_tree
    assert not parse_config("nothing").has_tree
