"""The command `mlopt`: recipes, runs, reports."""
