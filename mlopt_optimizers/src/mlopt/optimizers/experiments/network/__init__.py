"""The experiment `network`: minima and transition states of one system, and which joins which."""
