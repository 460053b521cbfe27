"""Node types as site.toml has them, for tests whose sites differ in everything else."""

H100_NODE = """
[node_types.h100]
gpu = "H100"
gpus = 8
idle_power = "2 kW"
max_power = "10.2 kW"
liquid_fraction = 0.7
modes = [
  {name = "full", gpu_power = "1.2 kW", speed = 1.0},
  {name = "eco", gpu_power = "0.9 kW", speed = 0.9},
  {name = "low", gpu_power = "0.7 kW", speed = 0.75},
]
"""
