"""Files for hosts that come with the package: units, users, folders, example settings, dashboards, charts."""
