"""``mlopt status``: the progress of a run, and whether a process still runs it; or what a ledger of labels holds."""

from __future__ import annotations

import click


@click.command()
@click.argument("directory", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(directory: str, as_json: bool) -> None:
    """Say what became of the run in DIR; a run that nobody runs any more is `killed`.

    DIR may also be a ledger of labels.
    """
    from dataclasses import asdict
    from pathlib import Path

    from mlopt.cli.terminal.output import emit_json, shown, table
    from mlopt.core.files.reading import is_there
    from mlopt.core.runs.directory import RunDirectory

    if is_there(directory) and Path(directory).is_file() and Path(directory).stat().st_size:
        _labels(directory, as_json)
        return
    run = RunDirectory.open(directory)
    status = run.read_status()
    checkpoints = len(list(run.path("checkpoints").glob("step-*.ckpt")))
    if as_json:
        emit_json(
            {"run_dir": str(run.root), "run_id": run.run_id, **asdict(status), "checkpoints": checkpoints}
        )
        return
    rows = [("state", status.state)]
    if status.message:
        rows.append(("", status.message))
    if status.state == "killed" and status.pid:
        rows.append(("", status.silent_end))
    done = status.progress.get("done")
    if isinstance(done, int | float):
        rows.append(("progress", f"{100 * done:.0f} %  {status.progress.get('message', '')}"))
    rows += [
        ("checkpoints", shown(checkpoints)),
        ("since", status.started or "-"),
        ("updated", status.updated or "-"),
    ]
    if status.state == "running":
        rows.append(("process", f"{status.pid} on {status.host}"))
    click.echo(table([("run directory", str(run.root)), *rows], indent=""))
    if status.state in ("killed", "failed", "preempted", "interrupted"):
        click.echo(f"go on with: mlopt resume {directory}")


def _labels(path: str, as_json: bool) -> None:
    """Say what a ledger holds of each labeller."""
    from dataclasses import asdict

    from mlopt.cli.terminal.output import cells, emit_json, table
    from mlopt.optimizers.labelling.ledger import Ledger

    with Ledger.open(path) as ledger:
        counts = ledger.counts()
    if as_json:
        emit_json({"ledger": path, "labellers": [asdict(one) for one in counts]})
        return
    rows = [
        {name: value for name, value in asdict(one).items() if name != "settings"}
        | {"edition": one.settings.get("edition", "")}
        for one in counts
    ]
    click.echo(table(cells(rows), indent="") if rows else f"{path} has no labels yet")
