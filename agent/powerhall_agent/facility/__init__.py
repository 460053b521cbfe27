"""The facility gateway: meters, PDUs, CDUs, chillers and weather stations, by Modbus TCP, Redfish and SNMP."""
