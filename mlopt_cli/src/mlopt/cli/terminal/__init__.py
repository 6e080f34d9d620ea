"""The terminal: what the command prints, and the line of progress."""
