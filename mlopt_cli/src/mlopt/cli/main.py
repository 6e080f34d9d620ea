"""The command `mlopt`: subcommands imported when called, and each error as one message with an exit code.

Invariant: ``mlopt --help`` imports nothing but click. Exit codes: see `EXIT_CODES`, shown by ``mlopt --help``.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from mlopt.cli.terminal import leaving
from mlopt.cli.terminal.output import emit_json, note, open_closed_streams, silence

# name -> one line for --help; the module is mlopt.cli.commands.<name>, its command the attribute `command`
COMMANDS = {
    "run": "Run a configuration file or a recipe.",
    "resume": "Go on with a run that was stopped or killed.",
    "status": "Say how far a run is.",
    "export": "Write the labels of a ledger to a file.",
    "report": "Write the report of a run anew.",
    "init": "Write a configuration to start from.",
    "validate": "Check configurations without running them.",
    "list": "List plugins by kind, and recipes.",
    "info": "Describe a plugin and its settings.",
    "plugins": "List installed plugins and where they come from.",
    "doctor": "Check the installation and this machine.",
}

EXIT_CODES = """\b
Exit codes:
  0    done
  1    the run failed
  2    the command or the configuration was wrong; nothing was written
  3    finished but not converged, under --strict
  75   stopped by a signal with a safe checkpoint: `mlopt resume DIR`
  130  stopped by Ctrl-C with a safe checkpoint, if the run had begun"""


# errors of a write to standard output that has no place to go; errors of files have a file name
_LOST = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class LazyGroup(click.Group):
    """A group of commands that imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"mlopt.cli.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from mlopt.core.quoting import one_line, quoted
            from mlopt.core.suggestions import hint

            meant = hint(name, COMMANDS)
            if name == "help":
                meant = " Write `mlopt --help`."
            elif not meant and _is_configuration(name):
                meant = f" Write `mlopt run {one_line(name, 100)}`."
            ctx.fail(f"No command is called {quoted(name)}.{meant} Commands: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, *others: Any, **more: Any) -> NoReturn:
        """Run the command and leave with an exit code; no exception except SystemExit passes through."""
        given = list(sys.argv[1:] if args is None else args)
        more = {"prog_name": "mlopt", **more, "standalone_mode": False}
        sys.exit(self._guarded(given, "--json" in given, more))

    def _guarded(self, given: list[str], as_json: bool, more: dict[str, Any]) -> int:
        stdout = sys.stdout
        try:
            with leaving.held():
                code = super().main(given, **more)
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except click.ClickException as error:
            return _say(error.format_message(), 2, as_json, _usage(error))
        except (KeyboardInterrupt, click.Abort):
            return _say("interrupted", 130, as_json)
        except OSError as error:
            if error.filename is not None or error.errno not in _LOST:
                return _unexpected(error, as_json)
            silence(sys.stdout)  # otherwise Python would report the error again when it flushes at the end
            if not isinstance(error, BrokenPipeError):  # the reader has closed the pipe
                note(
                    f"mlopt: standard output cannot be written to ({error.strerror}); what was to go there is lost"
                )
            return 1
        except SystemExit as error:
            if (
                sys.stdout is not stdout
            ):  # wrapped: click's own answer to a reader, such as `head`, that has left
                silence(stdout)
                return 1
            return _say(
                f"a plugin, or a library under it, called {leaving.called(error)}. `mlopt plugins` says where plugins "
                f"come from; tell its authors.",
                1,
                as_json,
            )
        except Exception as error:  # the last line of defence: a person sees a sentence, never a traceback
            return _unexpected(error, as_json)


def _is_configuration(name: str) -> bool:
    from mlopt.cli.configs.sources import is_recipe
    from mlopt.core.files.reading import is_there

    return is_recipe(name) or is_there(name)


def _unexpected(error: Exception, as_json: bool) -> int:
    if os.environ.get("MLOPT_DEBUG", "") not in ("", "0"):
        traceback.print_exc()
    from mlopt.core.errors import MloptError
    from mlopt.core.quoting import one_line
    from mlopt.core.runs.experiment import Preempted
    from mlopt.core.runs.preemption import ExitCode

    if isinstance(error, Preempted):  # before the run began, for example because labels have to come first
        return _say(one_line(error) or "stopped before it began", ExitCode.PREEMPTED, as_json)
    if isinstance(error, MloptError):
        return _say(str(error), error.exit_code, as_json)
    advice = "This is a bug of mlopt or of a plugin: MLOPT_DEBUG=1 shows where it happened."
    return _say(f"unexpected {type(error).__name__}: {one_line(error, 400)}. {advice}", 1, as_json)


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.get_usage()}\n" if context is not None else ""


def _say(message: str, code: int, as_json: bool, usage: str = "") -> int:
    from mlopt.core.quoting import several_lines

    message = several_lines(message)
    note(f"{usage}mlopt: {message}")
    if as_json:
        try:
            emit_json({"status": "error", "exit_code": code, "message": message})
            sys.stdout.flush()
        except OSError:  # it has been said on standard error
            silence(sys.stdout)
    return code


@click.command(
    cls=LazyGroup,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",  # click says so itself from 8.4 on
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--version", is_flag=True, is_eager=True, help="Show the version and leave.")
@click.pass_context
def cli(ctx: click.Context, version: bool) -> None:
    """Minimise rough energy landscapes in PyTorch: many starts at once, every force call counted.

    \b
    mlopt run lj38                     run a recipe
    mlopt init lj38 -o my.yaml         write it to a file, to change it
    mlopt run my.yaml -s starts=8      run that, with another setting
    """  # noqa: D301  \b keeps click from joining the lines
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as version_of

        try:
            found = version_of("mlopt-cli")
        except PackageNotFoundError:
            found = "(not installed)"
        click.echo(f"mlopt {found}")
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """Run the command line."""
    open_closed_streams()
    cli.main()


if __name__ == "__main__":
    main()
