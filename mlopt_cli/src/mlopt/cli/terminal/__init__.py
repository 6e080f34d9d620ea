"""The terminal: output of the command, and the line of progress."""
