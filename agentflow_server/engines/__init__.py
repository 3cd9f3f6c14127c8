"""Where and when runs are executed."""
