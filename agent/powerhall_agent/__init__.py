"""The node daemon: samples GPUs through NVML, spools every record and ships it to the store."""
