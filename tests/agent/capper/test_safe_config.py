"""The settings of the safe caps are read whatever the file holds."""

from pathlib import Path

import pytest

from powerhall_agent.capper.safe_config import DEFAULT_MEMORY, read_safe_config


@pytest.mark.parametrize(
    "junk", [b"x = " + b"1" * 5000, b"x = " + b"[" * 5000, b"x = '\xff'", b"x = nan", b"\x00", b"x"]
)
def test_a_line_that_is_no_toml_costs_no_safe_cap(tmp_path, junk):
    path = tmp_path / "capper.toml"
    path.write_bytes(b'safe_gpu_power_limit = "400 W"\n' + junk + b"\n")
    assert read_safe_config(path).limit_w == 400.0


def test_a_byte_order_mark_costs_no_field(tmp_path):
    """A first line that the strict reading alone took made it seem that the file had changed, at every start."""
    path = tmp_path / "capper.toml"
    path.write_bytes(b'\xef\xbb\xbfmemory = "/x/memory.json"\r\nsafe_gpu_power_limit = "400 W"\r\n')
    config = read_safe_config(path)
    assert (config.memory, config.limit_w, config.problem) == (Path("/x/memory.json"), 400.0, "")


@pytest.mark.parametrize("text", [None, "no = = toml\n"])
def test_with_simulated_gpus_a_broken_file_leads_to_no_file_of_this_host(tmp_path, text):
    """Notes of simulated GPUs there would pass for a capper's that has set the real ones."""
    path, state = tmp_path / "capper.toml", tmp_path / "gpus" / "state"
    if text is not None:
        path.write_text(text)
    config = read_safe_config(path, state)
    assert {config.memory.parent, config.socket.parent} == {state.parent}
    assert read_safe_config(path).memory == Path(DEFAULT_MEMORY)
    path.write_text('node = "n1"\nsafe_gpu_power_limit = "300 W"\n')
    assert read_safe_config(path, state).memory == Path(DEFAULT_MEMORY), "a good one means what it says"
