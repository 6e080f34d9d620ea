"""The subcommands of `mlopt`, one module each, imported when called."""
