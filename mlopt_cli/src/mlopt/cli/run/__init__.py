"""Running: from a configuration to a finished run directory, in every way that a run can end."""
