"""The experiment `network`: minima and transition states of one system, and their connections."""
