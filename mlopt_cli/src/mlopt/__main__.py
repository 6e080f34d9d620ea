"""``python -m mlopt`` is ``mlopt``; the distribution with the command alone has this file."""

from mlopt.cli.main import main

main()
