"""The facility gateway: meters, PDUs, CDUs, chillers and weather stations, by six protocols."""
