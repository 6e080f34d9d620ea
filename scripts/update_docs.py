"""Write docs/reference/commands.md: the `--help` text of every command.

    python scripts/update_docs.py            write it
    python scripts/update_docs.py --check    only say whether it is up to date; exits with 1 if not

tests/integration/test_docs.py makes the same comparison.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mlopt.cli.main import COMMANDS, cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "commands.md"
WIDTH = 80

HEAD = """# Commands

What `mlopt COMMAND --help` prints. This page is written by `python scripts/update_docs.py`, and a test keeps it true.
[Runs](../concepts/runs.md) says what a run leaves behind, and [configuration](../concepts/configuration.md) what goes
into one.
"""


def page() -> str:
    """The text of the page."""
    parts = [HEAD, _section("mlopt", _help(cli, None))]
    root = click.Context(cli, info_name="mlopt")
    for name in COMMANDS:
        command = cli.get_command(root, name)  # type: ignore[attr-defined]
        parts.append(_section(f"mlopt {name}", _help(command, name)))
    return "\n".join(parts)


def _help(command: click.Command, name: str | None) -> str:
    """The help text, as wide as the page, whatever the terminal."""
    width = {"terminal_width": WIDTH, "max_content_width": WIDTH, "help_option_names": ["-h", "--help"]}
    root = click.Context(cli, info_name="mlopt", **width)
    context = root if name is None else click.Context(command, info_name=name, parent=root)
    lines = command.get_help(context).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n```text\n{text}\n```\n"


def main() -> None:
    """Write or compare."""
    if "--check" in sys.argv[1:]:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print("up to date" if same else f"{PAGE} is out of date: python scripts/update_docs.py")
        sys.exit(0 if same else 1)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
