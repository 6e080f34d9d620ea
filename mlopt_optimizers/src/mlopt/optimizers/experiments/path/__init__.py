"""The experiment `path`: a minimum-energy path between two minima, and its saddle."""
