"""Real runs in separate processes, to be killed, damaged and compared."""
