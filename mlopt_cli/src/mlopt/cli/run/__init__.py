"""Runs of the command line: from a configuration to a finished run directory, with every possible ending."""
