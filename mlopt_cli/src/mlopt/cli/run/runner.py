"""The runner: it starts or resumes a run in a run directory, and handles every possible ending.

Order at the end: results, results/summary.json, report, STATUS.json.

Invariant: a run is finished exactly if STATUS.json says so. Killed at any instant before, it resumes from its newest
sound checkpoint, or from its beginning, and writes the same results again.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mlopt.cli.report.exhibits import goal
from mlopt.cli.run import environment, new_directory, workers
from mlopt.cli.run.context import RunContext
from mlopt.cli.terminal import display, leaving
from mlopt.cli.terminal.output import not_numbers, plain
from mlopt.core.errors import ConfigError, InputError, MloptError, PluginError, RunDirectoryError
from mlopt.core.files import atomic
from mlopt.core.plugins import registry
from mlopt.core.quoting import one_line, quoted
from mlopt.core.reporting.summary import Summary
from mlopt.core.runs import checkpoint, config, processes
from mlopt.core.runs.directory import RunDirectory
from mlopt.core.runs.experiment import Experiment, Preempted
from mlopt.core.runs.identity import Identity
from mlopt.core.runs.kept_files import FOLDER, KeptFiles
from mlopt.core.runs.preemption import CheckpointClock, ExitCode, Preemption

_DONE = ("finished", "not-converged")
#: results without a number that a message lists
_NAMED = 8


@dataclass(frozen=True)
class Options:
    """The options of a run on the command line; only ``threads`` affects the result."""

    strict: bool = False
    quiet: bool = False
    checkpoint_every: float = 60.0  # seconds
    threads: int | None = None
    max_minutes: float = math.inf  # of this piece of the run


@dataclass(frozen=True)
class Ending:
    """The ending of a run: exit code, one line for people, and the summary (what --json prints)."""

    code: ExitCode
    message: str
    summary: dict[str, Any]


def start(
    experiment: Experiment, *, name: str, config_input: str, out: str | None, options: Options
) -> Ending:
    """Check the experiment, make the run directory, and run. A refused request leaves no files."""
    clock = CheckpointClock(options.checkpoint_every)
    environment.use_threads(options.threads)
    resolved, files = examined(experiment)
    if workers.is_worker(experiment):
        return Ending(ExitCode.OK, workers.work(experiment), {"message": "worker"})
    environment.load_torch()  # before env.json is written, which says with how many threads torch computes
    with Preemption() as preemption:
        made = new_directory.make(out, name, config_resolved=resolved, config_input=config_input)
        with made.run.lock():
            context = RunContext(
                made.run,
                preemption,
                clock,
                display.make(options.quiet),
                Identity(resolved, files.digests),
                max_minutes=options.max_minutes,
            )
            context.log(f"{name}: run {made.run.run_id} in {made.run.root}")
            try:
                experiment = _reading_copies(made.run, files)
                return _conduct(experiment, context, preemption, options)
            except InputError:
                made.discard_if_idle()
                raise


def examined(experiment: Experiment) -> tuple[str, KeptFiles]:
    """Refuse an experiment that could not run, before anything is written: its settings, its files, its `check`.

    Return the resolved configuration and the files that it names.
    """
    resolved, files = _resolved(experiment), KeptFiles.of(experiment)
    experiment.check()
    return resolved, files


def resume(path: str, options: Options) -> Ending:
    """Resume a run from its newest sound checkpoint; for a finished run, return its outcome."""
    clock = CheckpointClock(options.checkpoint_every)
    run = RunDirectory.open(path)
    if processes.is_worker() and (follower := workers.described(run)).ranked:
        environment.use_threads(options.threads or environment.recorded_threads(run))
        # where the run is finished already, the first process has nothing to do either
        message = workers.work(follower) if _finished(run) is None else ""
        return Ending(ExitCode.OK, message, {"message": "worker"})
    with Preemption() as preemption, run.lock():
        source = str(run.path("config.resolved.yaml"))
        try:
            text = atomic.read_bytes(source).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunDirectoryError(
                f"{source}: cannot be read ({error}). Delete it; mlopt restores it."
            ) from error
        run.check_config(text)
        summary = _finished(run)
        if summary is not None:
            return _outcome(run, summary, options, f"{run.root} is finished already; nothing was done")
        before = _silent_end(run)
        experiment, files, notes = _files_of(run, text, source)
        environment.use_threads(options.threads or environment.recorded_threads(run))
        experiment.check()
        environment.load_torch()
        identity = Identity(text, files.digests)
        found = checkpoint.newest_sound(run.path("checkpoints"))
        restored = None
        if found:
            required = run.checkpoints_have_identity
            restored = identity.unseal(found[1], str(found[0]), required=required)
        context = RunContext(
            run, preemption, clock, display.make(options.quiet), identity, restored, options.max_minutes
        )
        for warning in [*before, *environment.differences(run), *notes]:
            context.log(f"warning: {warning}")
        step = -math.inf
        if found:
            for fault in found[2]:
                context.log(f"warning: skipped a checkpoint: {fault}")
            step = checkpoint_step(found[0])
            context.log(f"resumed from {found[0].name}")
        else:
            context.log("no checkpoint had been written: started from the beginning")
        run.truncate_metrics("step", step)
        return _conduct(experiment, context, preemption, options)


def _files_of(run: RunDirectory, text: str, source: str) -> tuple[Experiment, KeptFiles, list[str]]:
    """Return the experiment of a resumed run with its kept files, and messages about these files."""
    folder, settings = run.path(FOLDER), config.read_yaml(text, source)
    kept = KeptFiles.read(folder)
    if kept is not None:
        notes = kept.verify(folder)
        return kept.applied(settings, folder, source), kept, notes
    files = KeptFiles.of(config.load_experiment(settings, source))
    files.store(folder)
    notes = [f"no copy of {one.path} was kept: it is taken as it is now" for one in files.files]
    return files.applied(settings, folder, source), files, notes


def _reading_copies(run: RunDirectory, files: KeptFiles) -> Experiment:
    """Return the experiment of a new run, with the copies of its files in the run directory."""
    folder = run.path(FOLDER)
    files.store(folder)
    return files.applied(config.read_yaml(run.config_resolved), folder)


def checkpoint_step(path: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int("".join(character for character in path.stem if character.isdigit()))


def read_summary(run: RunDirectory) -> Summary | None:
    """Return the summary of a run with its page, or None."""
    value = _read_json(run, "summary.json")
    return goal(_read_json(run, "page.json"), value) if isinstance(value, dict) else None


def _read_json(run: RunDirectory, name: str) -> Any:
    try:
        return json.loads(atomic.read_bytes(run.path("results", name)))
    except (OSError, ValueError, RecursionError):
        return None


def _resolved(experiment: Experiment) -> str:
    """Return the resolved configuration after checking that it describes the same run, as a resume needs."""
    text = config.resolved(experiment)
    try:
        again = config.resolved(config.load_experiment(config.read_yaml(text)))
    except ConfigError as error:
        again = "\n".join(error.problems)
    if again != text:
        name = type(experiment).__name__
        pairs = zip_longest(text.splitlines(), again.splitlines(), fillvalue="")
        written, found = next(((a, b) for a, b in pairs if a != b), ("", ""))
        raise PluginError(
            f"the settings of {name} do not survive being written and read again, so the run could not be resumed. "
            f"This is a fault of {name} or of a plugin in it; tell its authors. "
            f"Written: {quoted(written.strip(), 120)}; read: {quoted(found.strip(), 120)}"
        )
    return text


def _finished(run: RunDirectory) -> Summary | None:
    try:
        done = run.read_status().state in _DONE
    except RunDirectoryError:  # a damaged STATUS.json is rewritten by the resumed run
        return None
    return read_summary(run) if done else None


def _silent_end(run: RunDirectory) -> list[str]:
    """Return a message about the process that had the run before, if it ended without one."""
    with contextlib.suppress(RunDirectoryError):
        before = run.read_status()
        # this process holds the lock, so the process that is marked as running has ended
        return [before.silent_end] if before.state in ("running", "killed") and before.pid else []
    return []


def _conduct(experiment: Experiment, context: RunContext, preemption: Preemption, options: Options) -> Ending:
    """Run under the lock; STATUS.json and log.txt record every outcome."""
    run = context.run
    began = time.monotonic()
    try:
        context.status("running")
        summary = _judged(experiment, experiment.run(context).summary())
        atomic.write_json(run.path("results", "page.json"), plain(summary.page()))
        atomic.write_json(run.path("results", "summary.json"), summary)
        context.close()
        _report(context)
        state, message = "finished", summary.failure
        if message:
            state = "failed"
        elif options.strict and summary.reached is False:
            state = "not-converged"
        context.status(state, message)
        context.record(
            f"{state} after {time.monotonic() - began:.1f} s" + (f": {message}" if message else "")
        )
    except Preempted as stopped:
        # Preempted without a signal: the experiment has its own reason, and a checkpoint all the same.
        code = preemption.exit_code or ExitCode.PREEMPTED
        state = "interrupted" if code is ExitCode.INTERRUPTED else "preempted"
        other = "the experiment" if math.isinf(options.max_minutes) else "--max-minutes"
        message = one_line(stopped) or f"stopped by {preemption.requested or other}; the checkpoint is safe"
        return _stopped(context, code, state, message)
    except KeyboardInterrupt:
        message = "stopped by a second Ctrl-C; the last checkpoint is kept"
        return _stopped(context, ExitCode.INTERRUPTED, "interrupted", message)
    except MloptError as error:
        _failed(context, str(error), str(error))
        raise
    except (Exception, SystemExit) as error:
        message = f"the run failed with an unexpected {type(error).__name__}: {one_line(error, 400)}"
        if isinstance(error, SystemExit):  # from a plugin or a library; mlopt itself never exits in this way
            message = f"the run failed: something in it called {leaving.called(error)}"
        _failed(context, message, traceback.format_exc())
        log = run.path("log.txt")
        raise MloptError(
            f"{message}. The traceback is in {log}; once mended: mlopt resume {run.root}"
        ) from error
    finally:
        context.close()
    return _outcome(run, summary, options, "")


def _judged(experiment: Experiment, told: Mapping[str, Any]) -> Summary:
    """Return a summary as JSON data. A summary with a NaN or an infinity becomes that of a failed run."""
    given, wrong = Summary.of(told), not_numbers(told)
    summary = Summary.with_page(plain(given), given.page())
    if wrong:
        listed = ", ".join(f"{name} is {value}" for name, value in wrong[:_NAMED])
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        summary = summary.failed(f"the run ended with results that are no numbers: {listed}{more}")
    return summary.of_kind(registry.name_of("experiment", type(experiment)) or type(experiment).__name__)


def _stopped(context: RunContext, code: ExitCode, state: str, message: str) -> Ending:
    context.close()
    root = context.run.root
    context.record(message)
    _try_status(context, state, message)
    summary = {"status": state, "exit_code": int(code), "message": message, "run_dir": str(root)}
    return Ending(code, f"{message}. Go on with: mlopt resume {root}", summary)


def _failed(context: RunContext, message: str, details: str) -> None:
    context.record(details)
    _try_status(context, "failed", message)


def _try_status(context: RunContext, state: str, message: str) -> None:
    """Write STATUS.json if possible; a failure to write must not hide how the run ended."""
    try:
        context.status(state, message)
    except MloptError as error:
        context.record(str(error))


def _report(context: RunContext) -> None:
    """Write the report; a failure is only a warning, because the results are safe."""
    try:
        from mlopt.cli.report.page import write_report

        write_report(context.run.root)
    except Exception as error:
        context.record(traceback.format_exc())
        again = f"mlopt report {context.run.root}"
        context.log(f"warning: no report was written ({type(error).__name__}: {error}). Try again: {again}")


def _outcome(run: RunDirectory, summary: Summary, options: Options, message: str) -> Ending:
    report = run.path("report.html")
    told = summary | {"run_dir": str(run.root), "report": str(report) if report.exists() else None}
    if summary.failure:
        return Ending(ExitCode.FAILED, f"{summary.failure}; what it found is in {run.path('results')}", told)
    if options.strict and summary.reached is False:
        return Ending(ExitCode.NOT_CONVERGED, f"not converged: {summary.missed}", told)
    return Ending(ExitCode.OK, message, told)
