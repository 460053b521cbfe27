"""What every command needs, once: command line, log, signals, file lock, files, settings, errors and extras."""
