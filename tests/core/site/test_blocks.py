"""Levels of blocks in site.toml: from zones, by name, from files of Slurm and Kubernetes; refusals of each mistake."""

import json

import pytest

from powerhall.hostlist import expand
from powerhall.runtime.errors import ConfigError, Rejected
from powerhall.site.index import SiteIndex
from powerhall.site.site_file import read_site

SITE = """
[site]
name = "s1"
[node_types.gb]
gpu = "GB200"
gpus = 4
idle_power = "1.8 kW"
max_power = "10.2 kW"
modes = [{name = "full", gpu_power = "970 W", speed = 1.0}]
[node_types.old]
gpu = "H100"
gpus = 8
idle_power = "1.8 kW"
max_power = "10.2 kW"
modes = [{name = "full", gpu_power = "970 W", speed = 1.0}]
[[halls]]
name = "hall1"
rows = [{name = "a", racks = [{node_type = "gb", name = "k1", nodes = "gn[01-06]"},
                              {node_type = "gb", name = "k2", nodes = "gn[07-12]"},
                              {node_type = "old", name = "k3", nodes = "old[1-2]"}]}]
"""
TREE = """# comment
SwitchName=root Switches=s[1-2]
SwitchName=s1 Nodes=gn[01-06],cpu[1-9] LinkSpeed=100
switchname=s2 \\
  NODES=gn[07-08],\\
gn[09-12]
"""
BLOCKS = "BlockName=b1 Nodes=gn[01-03]\nBlockName=b2 Nodes=gn[04-06]\nBlockName=b3 Nodes=gn[07-09]\nBlockSizes=3,6\n"
SCONTROL = """SwitchName=root Level=1 LinkSpeed=1 Nodes=gn[01-12] Switches=s[1-2]
SwitchName=s1 Level=0 LinkSpeed=1 Nodes=gn[01-06]
SwitchName=s2 Level=0 LinkSpeed=1 Nodes=gn[07-12]
"""
YAML = """---
- topology: cpu
  flat: true
- topology: nv
  cluster_default: true
  block:
    block_sizes: [3, 6]
    blocks:
      - {block: b1, nodes: "gn[01-03]"}
      - {block: b2, nodes: "gn[04-06]"}
- topology: ib
  tree:
    switches:
      - {switch: top, children: "s[1-2]"}
      - {switch: s1, nodes: "gn[01-06]"}
      - {switch: s2, nodes: "gn[07-12]"}
"""
CLIQUE = "nvidia.com/gpu.clique"
NODES = {"items": [{"metadata": {"name": f"gn{n:02d}", "labels": {CLIQUE: f"c.{n > 6}"}}} for n in range(1, 13)]}
NODES["items"] += [{"metadata": {"name": "gn99", "labels": {}}}, {"metadata": None}, 7]


def blocks(folder, table, files=()):
    for name, text in dict(files).items():
        (folder / name).write_text(text)
    (folder / "site.toml").write_text(f"{SITE}[blocks.nv]\n{table}\n")
    (level,) = read_site(folder / "site.toml")[0].levels
    return {block.name: expand(block.nodes) for block in level.blocks}


def names(first, last):
    return tuple(f"gn{n:02d}" for n in range(first, last + 1))


def test_each_rack_is_a_block(tmp_path):
    found = blocks(tmp_path, 'each = "rack"\nnode_types = ["gb"]')
    assert found == {"hall1/a/k1": names(1, 6), "hall1/a/k2": names(7, 12)}


def test_racks_are_cut_into_blocks_of_so_many_nodes(tmp_path):
    found = blocks(tmp_path, 'each = "rack"\nnodes = 4\nnode_types = ["gb"]')
    assert found["hall1/a/k1/1"] == names(1, 4)
    assert found["hall1/a/k1/2"] == names(5, 6)


def test_blocks_by_name_have_zones_and_nodes(tmp_path):
    found = blocks(tmp_path, 'members = {one = ["hall1/a/k1"], two = ["gn[07-08]", "old1"]}')
    assert found == {"one": names(1, 6), "two": ("gn07", "gn08", "old1")}


@pytest.mark.parametrize(
    ("table", "file", "text", "expected"),
    [
        ("", "topology.conf", TREE, {"s1": names(1, 6), "s2": names(7, 12)}),
        ("tier = 2", "topology.conf", TREE, {"root": names(1, 12)}),
        ("", "shown.txt", SCONTROL, {"s1": names(1, 6), "s2": names(7, 12)}),
        ("tier = 2", "shown.txt", SCONTROL, {"root": names(1, 12)}),
        ("", "topology.conf", BLOCKS, {"b1": names(1, 3), "b2": names(4, 6), "b3": names(7, 9)}),
        ("tier = 2", "topology.conf", BLOCKS, {"b1+b2": names(1, 6), "b3": names(7, 9)}),
        ("", "topology.yaml", YAML, {"b1": names(1, 3), "b2": names(4, 6)}),
        ('topology = "ib"', "topology.yaml", YAML, {"s1": names(1, 6), "s2": names(7, 12)}),
        ('topology = "ib"\ntier = 2', "topology.yaml", YAML, {"top": names(1, 12)}),
        (
            "",
            "topology.json",
            '{"topology": [{"switches": [{"switch": "s1", "nodes": "gn[01-06]"}]}], "meta": {}}',
            {"s1": names(1, 6)},
        ),
        (f'label = "{CLIQUE}"', "nodes.json", json.dumps(NODES), {"c.False": names(1, 6), "c.True": names(7, 12)}),
    ],
)
def test_blocks_come_from_files_of_schedulers(tmp_path, table, file, text, expected):
    assert blocks(tmp_path, f'file = "{file}"\n{table}', {file: text}) == expected


@pytest.mark.parametrize(
    ("table", "text", "says"),
    [
        ("", "", "blocks.nv: None: must have exactly one of each, members, file"),
        ('each = "rack"\nfile = "t.conf"', "", "blocks.nv: 'each and file': must have exactly one of"),
        ('members = {a = ["gn01"], b = ["gn[01-02]"]}', "", "'gn01': is in the blocks a and b"),
        ('members = {a = ["gn77"]}', "", "blocks.nv.members.a: 'gn77': must be a node or a zone of the site"),
        ('members = {a = ["gn[2-1]"]}', "", "a range must rise"),
        ('each = "rack"\nnode_types = ["x"]', "", "blocks.nv.node_types: 'x': must be one of gb, old"),
        ('file = "t.conf"\nnodes = 3', TREE, "blocks.nv.nodes: 3: needs 'each'"),
        ('file = "t.conf"\ntier = 3', TREE, "tier: 3: must be from 1 to 2"),
        ('file = "t.conf"\ntier = 3', BLOCKS, "tier: 3: must be from 1 to 2, the number of BlockSizes"),
        ('file = "t.conf"', "SwitchName=a Switches=a\n", "switch: 'a': must not be below itself"),
        ('file = "t.conf"', "SwitchName=a Switches=b\n", "switch: 'b': is below a, and must have a line of its own"),
        ('file = "t.conf"', "nothing here\n", "has no switch, block or node"),
        ('file = "t.conf"', "SwitchName=a Nodes=other[1-3]\n", "must name nodes of the site; it has 'other1'"),
        ('file = "t.conf"', "BlockName=a Nodes=gn[01-\n", "line 1: nodes: 'gn[01-': "),
        ('file = "t.conf"', "BlockName=a Nodes=gn01\nBlockSizes=x\n", "line 2: BlockSizes: 'x': must be whole"),
        ('file = "t.yaml"', "- &a [1]\n- *a\n", "t.yaml: line 2: must not have aliases"),
        ('file = "t.yaml"', "a: [", "t.yaml: not valid YAML"),
        ('file = "t.yaml"', "[" * 100, "nested deeper than 64 levels"),
        ('file = "t.yaml"\ntopology = "zz"', YAML, "topology: 'zz': must be a topology of the file, which has cpu, nv"),
        ('file = "t.json"', json.dumps(NODES), "label: None: must name the node label"),
        ('file = "t.json"\nlabel = "zone"', json.dumps(NODES), "label: 'zone': must be a label of nodes in the file"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(tmp_path, table, text, says):
    with pytest.raises(Rejected) as refused:
        blocks(tmp_path, table, {"t.conf": text, "t.yaml": text, "t.json": text})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_level_is_no_kind_of_zone_and_its_file_must_be_there(tmp_path):
    (tmp_path / "site.toml").write_text(f'{SITE}[blocks.rack]\neach = "rack"\n')
    with pytest.raises(Rejected, match=r"blocks.rack: 'rack': .*none of rack, row, hall"):
        read_site(tmp_path / "site.toml")
    with pytest.raises(ConfigError, match=r"gone.conf: cannot read"):
        blocks(tmp_path, 'file = "gone.conf"')


def test_every_site_has_its_zones_as_levels(tmp_path):
    (tmp_path / "site.toml").write_text(SITE)
    levels = SiteIndex.of(read_site(tmp_path / "site.toml")[0]).block_levels
    assert levels["rack"]["gn07"] == "hall1/a/k2"
    assert (levels["row"]["old1"], levels["hall"]["gn01"]) == ("hall1/a", "hall1")
    assert list(levels) == ["rack", "row", "hall"]
