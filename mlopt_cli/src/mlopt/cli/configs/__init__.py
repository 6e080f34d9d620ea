"""Configurations: files and recipes, and the description of a plugin's settings."""
