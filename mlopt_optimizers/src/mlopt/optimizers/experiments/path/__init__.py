"""The experiment `path`: the way from one minimum to another over the lowest pass that a band finds."""
