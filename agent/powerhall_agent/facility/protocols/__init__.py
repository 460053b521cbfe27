"""The protocols of facility devices, one file each: settings, points of a map and reader."""
