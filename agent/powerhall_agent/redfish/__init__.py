"""Redfish (DMTF DSP0266, DSP0268): the client of node and facility, and where a service shows its host's power."""
