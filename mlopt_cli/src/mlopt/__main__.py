"""The entry point of ``python -m mlopt``, which is ``mlopt``; only the distribution with the command has this file."""

from mlopt.cli.main import main

main()
