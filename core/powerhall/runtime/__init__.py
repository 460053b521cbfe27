"""What every command needs: settings files, errors, exit codes, atomic file writes."""
