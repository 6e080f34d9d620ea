"""``python -m mlopt.cli`` is ``mlopt``."""

from mlopt.cli.main import main

main()
