"""One run from its specs to its results: data, tokenizer and features, training, evaluation, summary."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.config import build, cores
from toolkit.data import pipeline
from toolkit.data.columns.column import Columns, columns_of
from toolkit.data.lanes import Reader
from toolkit.data.problems import LISTED, Report
from toolkit.data.split import Corpus, Data, Learned, batched
from toolkit.data.stream import Stream
from toolkit.errors import ConfigError, UserError, writing
from toolkit.runs import checkpoint, results, resume
from toolkit.runs.checkpoint import LEARNED, Checkpoint
from toolkit.runs.folder import Onlooker, RunFolder
from toolkit.runs.place import DROPPED
from toolkit.runs.predictor import Predictor
from toolkit.training import loop
from toolkit.training.engine import Engine
from toolkit.training.progress import Progress
from toolkit.training.session import Session
from toolkit.training.split import TrainingSplit
from toolkit.training.stock import session as stock
from toolkit.training.stock.session import StockSession

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@dataclass(frozen=True)
class Parts:
    """Inputs of a run that need no framework.

    Args:
        columns: columns of the task.
        train: training split.
        data: splits in memory, by name; train too, unless it is a stream.
        learned: tokenizer and state of the features.
        fingerprint: hash of the dataset.
    """

    columns: Columns
    train: TrainingSplit
    data: Mapping[str, Data]
    learned: Learned
    fingerprint: str


def execute(run: Run, config: Mapping[str, Any], overrides: list[str], rank: int | None = None) -> None:
    """Execute a run, from its data to its results.

    Args:
        run: checked specs.
        config: the same as plain data, for the run folder.
        overrides: the command line.
        rank: see :func:`toolkit.training.processes.own_rank`.

    Raises:
        UserError: bad data, or a failed run; existing files stay.
    """
    start = time.perf_counter()
    folder = Onlooker(Path(run.run_dir)) if rank else RunFolder(Path(run.run_dir))
    with contextlib.closing(folder):
        # rank 0 connects after it has prepared the data, and the other ranks wait for it here; TPUs connect first, so
        # that a missing TPU fails before any data is prepared
        link = connect(run) if rank or run.trainer.strategy == "tpu" else None
        engine, parts, progress = _set_up(run, config, overrides, folder, link)
        speed = {} if run.evaluate else _train(run, engine, parts, folder, progress)
        _finish(run, engine, parts, folder, progress, speed, start)


def _set_up(
    run: Run, config: Mapping[str, Any], overrides: list[str], folder: RunFolder, link: Any
) -> tuple[Engine, Parts, Progress]:
    """Prepare the data, build the engine, load an earlier checkpoint if there is one, and describe the run.

    Args:
        run, config, overrides: see :func:`execute`.
        folder: the run folder.
        link: see :func:`build_engine`.

    Returns:
        the engine, its data, and the progress from which it trains.
    """
    earlier = _earlier(run, folder)
    changed = resume.changes(earlier.about.config, config) if earlier else {}
    if earlier:
        resume.check(run, changed, earlier)
    parts = prepare(run, folder, earlier, resume.learned_anew(run, changed))
    progress = Progress(facts=_facts(run, parts))
    if earlier:
        resume.check_model(run, changed, earlier, parts.learned)
        if run.resume:
            resume.check_data(run, changed, earlier, progress.facts)
    engine = build_engine(run, parts.learned, link)
    if earlier:
        load_checkpoint(engine, earlier, weights_only=not run.resume)
        progress = replace(earlier.progress, facts=progress.facts)
    folder.write_config(config, overrides)
    if earlier:
        if run.resume:
            _take_over(engine, earlier, progress, folder)
        folder.say(f"{'evaluating' if run.evaluate else 'resuming from'} {earlier.path} at step {progress.step}")
        if run.resume and changed:
            folder.say(f"changed since the checkpoint: {resume.describe(changed)}")
    return engine, parts, progress


def prepare(run: Run, folder: RunFolder, earlier: Checkpoint | None = None, anew: Collection[str] = ()) -> Parts:
    """Fetch, decode and check the data; learn or restore the tokenizer and the features.

    Args:
        run: the run's specs.
        folder: gets the tokenizer and the state of the features.
        earlier: checkpoint to restore them from; None: learn them.
        anew: groups to learn again despite the checkpoint, such as "tokenizer".

    Raises:
        DataError: lists every problem.
    """
    columns = columns_of(run)
    corpus = pipeline.prepare(run.dataset, columns)
    reader = Reader(run, columns) if run.dataset.streaming and not run.evaluate else None
    learned = _learn_or_restore(columns, corpus, reader, folder, earlier, anew)
    corpus = pipeline.usable(run, columns, corpus, learned)
    _report(corpus.report, folder)
    if not run.evaluate:
        pipeline.require_validation(corpus)
    data = _batched(run, columns, corpus, learned)
    if reader is None:
        return Parts(columns, data["train"], data, learned, corpus.fingerprint)
    del data["train"]
    return Parts(columns, Stream(reader, learned), data, learned, f"{corpus.fingerprint} {reader.fingerprint}")


def _learn_or_restore(
    columns: Columns,
    corpus: Corpus,
    reader: Reader | None,
    folder: RunFolder,
    earlier: Checkpoint | None,
    anew: Collection[str],
) -> Learned:
    """Restore what the columns learned from a checkpoint, learn the rest, and keep all of it in the run folder."""
    groups = pipeline.groups(columns)
    restored = [group for group in groups if earlier and group not in anew]
    files = earlier.about.learned if earlier else {}
    folder.replace_learned({name: blob for name, blob in files.items() if name.split("/")[1] in restored})
    missing = [group for group in groups if group not in restored]
    if missing and folder.writes:
        train = reader.sample() if reader else corpus.splits["train"]
        pipeline.learn(columns, train, folder.path / LEARNED, missing)
    return pipeline.load(columns, folder.path / LEARNED)


def _batched(run: Run, columns: Columns, corpus: Corpus, learned: Learned) -> dict[str, Data]:
    """Cut every split into batches; only those of a training are augmented."""
    return {
        name: batched(run, columns, split, learned, name == "train" and not run.evaluate)
        for name, split in corpus.splits.items()
    }


def _report(report: Report, folder: RunFolder) -> None:
    """Print and list the examples that were dropped, and print the notes about the data."""
    folder.write_dropped(report.lines)
    if report.dropped:
        folder.say("dropped: " + ", ".join(f"{n} {kind}" for kind, n in report.dropped.items()))
        for line in report.lines[:LISTED]:
            folder.say(f"    {line}")
        if more := len(report.lines[LISTED:]):
            folder.say(f"    and {more} more in {folder.path / DROPPED}")
    for line in report.notes:
        folder.say(line)


def connect(run: Run) -> Any:
    """Load the framework and join the other processes of the run; wait for rank 0."""
    with _quiet_stderr():
        return build.load_module("toolkit.training", run.backend).connect(run)


def build_engine(run: Run, learned: Learned, link: Any = None) -> Engine:
    """Load the framework and build its engine.

    Args:
        run: the run's specs.
        learned: tokenizer and state of the features.
        link: of :func:`connect`, if that was called before.
    """
    with _quiet_stderr():
        module = build.load_module("toolkit.training", run.backend)
        return module.build_engine(run, learned, link)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Collect the standard error of a framework's libraries while they load; print it only if they fail."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except UserError:  # its message is enough
            raise
        except BaseException:
            file.seek(0)
            os.write(stderr, file.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def _source(run: Run) -> Path | None:
    """Return the folder of the earlier run that this one resumes or evaluates; None for a fresh start."""
    here = Path(run.run_dir) if checkpoint.find(Path(run.run_dir) / "checkpoints", "last") else None
    if run.resume == "auto":
        return here
    named = run.evaluate or run.resume
    if here and run.evaluate:
        raise ConfigError(
            f"run_dir: {here} holds a run, and evaluate writes a run folder of its own; choose another one"
        )
    if here and (named is None or here.resolve() != Path(named).resolve()):
        raise ConfigError(f"run_dir: {here} holds a run; set resume=auto to resume it, or choose another folder")
    if named is None:
        return None
    if not checkpoint.find(Path(named) / "checkpoints", "last"):
        if run.evaluate:
            raise ConfigError(f"evaluate: {named} has no checkpoint, expected a trained run")
        again = f"start it again with its recipe and overrides, run_dir={named} and resume=auto"
        raise ConfigError(f"resume: {named} has no checkpoint yet; {again}")
    return Path(named)


def _facts(run: Run, parts: Parts) -> dict[str, Any]:
    """Return the facts on which a position in the data depends."""
    return {
        "dataset": parts.fingerprint,
        "seed": run.seed,
        "accumulate": run.trainer.accumulate,
        "plan": parts.train.digest,
    }


def _earlier(run: Run, folder: RunFolder) -> Checkpoint | None:
    """Return the checkpoint that the run resumes or evaluates; None for a fresh start."""
    source = _source(run)
    if source is None:
        return None
    return checkpoint.choose(source / "checkpoints", "best" if run.evaluate else "last", folder.say)


def _take_over(engine: Engine, earlier: Checkpoint, progress: Progress, folder: RunFolder) -> None:
    """Make the resumed state the last checkpoint of this folder; copy the best one if it is in another folder.

    Args:
        engine: has the state of the checkpoint.
        earlier: the checkpoint.
        progress: of the run.
        folder: the run folder.
    """
    source = earlier.path.parent
    if folder.checkpoints.resolve() != source.resolve():
        if folder.writes or engine.sharded:
            folder.take_over(engine.state(), progress, source)
    elif folder.writes:  # a run may have been killed before it wrote the index, or the last checkpoint is damaged
        with writing(folder.checkpoints):
            checkpoint.point(folder.checkpoints, earlier.path.name, progress)


def load_checkpoint(engine: Engine, earlier: Checkpoint, weights_only: bool) -> None:
    """Load a checkpoint into the engine.

    Args:
        engine: of the run.
        earlier: the checkpoint.
        weights_only: the engine evaluates: it need not have the optimizer of the checkpoint.

    Raises:
        ConfigError: the checkpoint belongs to another model or optimizer.
    """
    try:
        if weights_only:
            engine.load_weights(earlier.state)
        else:
            engine.load(earlier.state)
    except ValueError as error:
        raise ConfigError(f"{earlier.path}: does not fit this run: {error}") from error


def _train(run: Run, engine: Engine, parts: Parts, folder: RunFolder, progress: Progress) -> dict[str, float]:
    """Train to the end.

    Returns:
        the training time in seconds and the examples per second, validations included.
    """
    train, validation, target = parts.train, parts.data["validation"], parts.learned.target
    steps = train.steps(run.trainer)
    folder.say(f"{run.recipe}, {run.backend}: {train.describe()}, {steps} steps")
    if progress.step >= steps:
        folder.say(
            f"nothing is left to train: the checkpoint is at step {progress.step}; "
            "set a larger trainer.max_steps or trainer.max_epochs to train on"
        )
    if line := cores.limited():
        folder.say(line)
    folder.rewind(progress)
    examples, start = train.passed(progress), time.perf_counter()
    if run.trainer.loop == "stock":
        stock.fit(StockSession(run, engine, parts.data["train"], validation, target, folder, progress))
    else:
        with contextlib.closing(train):
            loop.fit(Session(run, engine, train, validation, target, folder, progress))
    engine.total(np.zeros(1))  # a barrier: the last checkpoint is complete before any process reads it
    seconds = time.perf_counter() - start
    for line in train.notes():
        folder.say(line)
    return {
        "train_seconds": round(seconds, 1),
        "examples_per_second": round((train.passed(progress) - examples) / max(seconds, 1e-9), 1),
    }


def _finish(
    run: Run,
    engine: Engine,
    parts: Parts,
    folder: RunFolder,
    progress: Progress,
    speed: Mapping[str, float],
    start: float,
) -> None:
    """Evaluate the best checkpoint on every split except ``train``; write predictions, results and a summary."""
    if not run.evaluate and checkpoint.find(folder.checkpoints, "best"):
        best = checkpoint.choose(folder.checkpoints, "best", folder.say)
        load_checkpoint(engine, best, weights_only=True)
        progress = best.progress
    predictor = Predictor(run, parts.columns, parts.learned, engine)
    metrics, table, milliseconds = results.measure(predictor, parts.data, folder)
    summary = {
        "recipe": run.recipe,
        "backend": run.backend,
        "seed": run.seed,
        "metrics": metrics,
        "step": progress.step,
        "epoch": progress.epoch,
        "parameters": results.parameters(run, parts.learned),
        "padding_efficiency": parts.train.efficiency(),
        "examples": {name: len(data.split) for name, data in parts.data.items() if len(data.split)},
        "metric_signatures": run.task.signatures(parts.data["test"].split.target),
        **speed,
        **milliseconds,
        "wall_seconds": round(time.perf_counter() - start, 1),
        "dataset_fingerprint": parts.fingerprint,
    }
    folder.write_results(summary)
    if table:
        folder.say(table)
    results.summarize(run.task, summary, folder)
