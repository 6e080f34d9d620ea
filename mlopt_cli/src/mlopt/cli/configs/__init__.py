"""Configurations: files and recipes, and what the settings of a plugin are."""
