"""Parts that all commands share: command line, log, signals, file lock, files, settings, errors and extras."""
