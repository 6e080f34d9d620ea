"""The experiment `meta-train`: epochs of a meta-trainer on a task."""
