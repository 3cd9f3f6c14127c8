"""Where threads, messages, runs and events are kept."""
