"""The experiment `contest`: optimizers on the same systems, from the same starts, at equal force calls."""
