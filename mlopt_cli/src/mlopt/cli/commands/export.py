"""``mlopt export``: the labels of a ledger as a file for other programs."""

from __future__ import annotations

import click


@click.command()
@click.argument("ledger", metavar="LEDGER")
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="Where to write: *.extxyz, or *.db for ASE."
)
@click.option("--labeller", metavar="NAME|NUMBER", help="Whose labels, as `mlopt status LEDGER` lists them.")
@click.option("--failed", is_flag=True, help="Write structures whose label failed, with the reason.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(ledger: str, output: str, labeller: str | None, failed: bool, as_json: bool) -> None:
    """Write the labels in LEDGER to a file; an existing file is replaced.

    The format extxyz rounds positions and forces to 8 decimals, ASE's database does not.
    """
    from pathlib import Path

    from mlopt.cli.terminal.output import emit_json
    from mlopt.core.errors import InputError
    from mlopt.core.files.database import is_of_mlopt
    from mlopt.core.quoting import quoted
    from mlopt.core.structures.write import write_ase_db, write_extxyz
    from mlopt.optimizers.labelling.ledger import Ledger

    path = Path(output)
    if path.suffix.lower() not in (".extxyz", ".xyz", ".db"):
        raise InputError(f"{quoted(output)}: write to a file that ends in .extxyz or .db")
    if is_of_mlopt(path):
        raise InputError(
            f"{path} is a database of mlopt, which an export would replace: choose another file with -o"
        )
    whose = int(labeller) if labeller is not None and labeller.isdecimal() else labeller
    with Ledger.open(ledger) as opened:
        images = opened.images(whose, failed=failed)
    what = "failed structure" if failed else "label"
    if not images:
        raise InputError(f"{ledger} has no {what} to write")
    if path.suffix.lower() == ".db":
        names = ("labeller", "label_seconds", "failure")
        facts = [{name: one.info[name] for name in names if name in one.info} for one in images]
        write_ase_db(path, images, facts)
    else:
        write_extxyz(path, images)
    if as_json:
        emit_json({"file": str(path), "count": len(images)})
    else:
        click.echo(f"wrote {len(images):,} {what}{'' if len(images) == 1 else 's'} to {path}")
