"""The entry point of ``python -m mlopt.cli``, which is ``mlopt``."""

from mlopt.cli.main import main

main()
