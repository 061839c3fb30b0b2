"""One run from its specs to its results: data, learned parts, training, evaluation, summary."""

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

from toolkit.config import build
from toolkit.data import pipeline
from toolkit.data.columns.column import Columns, columns_of
from toolkit.data.problems import LISTED
from toolkit.data.split import Learned, batched
from toolkit.data.stream import Reader, Stream
from toolkit.errors import ConfigError, DataError, UserError, writing
from toolkit.inference.predictor import Predictor
from toolkit.runs import checkpoint, results, resume
from toolkit.runs.checkpoint import LEARNED, Checkpoint
from toolkit.runs.folder import Onlooker, RunFolder
from toolkit.training import loop
from toolkit.training import processes as ranks
from toolkit.training.engine import Engine
from toolkit.training.progress import Progress
from toolkit.training.stock.session import StockSession

if TYPE_CHECKING:
    from toolkit.config.schema import Run


@dataclass(frozen=True)
class Parts:
    """What a run works with, before a framework is loaded.

    Args:
        columns: of the run.
        data: the splits by name; train may be a stream.
        learned: tokenizer and state of the features.
        fingerprint: of the data set.
    """

    columns: Columns
    data: dict[str, Any]
    learned: Learned
    fingerprint: str


def execute(run: Run, config: Mapping[str, Any], overrides: list[str]) -> int:
    """Do the run that ``run`` describes.

    Args:
        run: ``toolkit.config.schema.Run``, checked.
        config: the same, as plain data, for the run folder.
        overrides: the command line.

    Returns:
        the exit code.

    Raises:
        UserError: bad data, a failed run; nothing that was there before is lost.
    """
    began = time.perf_counter()
    rank = ranks.started(run)
    folder = Onlooker(Path(run.run_dir)) if rank else RunFolder(Path(run.run_dir))
    try:
        # the first process joins the others when it has prepared the data, for which they wait here; a TPU that is not
        # there is no reason to prepare any
        link = connect(run) if rank or run.trainer.strategy == "tpu" else None
        earlier = _earlier(run, config, folder)
        parts = prepare(run, folder, earlier, resume.learned_anew(run, config, earlier) if earlier else None)
        at = Progress(facts=_facts(run, parts))
        if earlier:
            resume.check_model(run, config, earlier, parts.learned)
            if run.resume:
                resume.check_data(run, config, earlier, at.facts)
        engine = load_engine(run, parts.learned, link)
        if earlier:
            at = _take_over(run, engine, earlier, at, folder)
        folder.describe(config, overrides)
        if earlier:
            folder.say(f"{'evaluating' if run.evaluate else 'going on from'} {earlier.path} at step {at.step}")
            if run.resume and (changed := resume.changes(earlier.about.config, config)):
                folder.say(f"changed since the checkpoint: {resume.told(changed)}")
        earlier = None  # the engine has copies of its arrays
        speed = {} if run.evaluate else _train(run, engine, parts, folder, at)
        _finish(run, engine, parts, folder, at, speed, began)
    finally:
        folder.close()
    return 0


def prepare(
    run: Run, folder: RunFolder, earlier: Checkpoint | None = None, anew: Collection[str] | None = None
) -> Parts:
    """Fetch, decode and check the data; learn or reload the tokenizer and the features.

    Args:
        run: the run's specs.
        folder: where what is learned goes.
        earlier: a checkpoint to take it from instead.
        anew: what is learned all the same, of "tokenizer" and "features"; None: everything.
    """
    columns = columns_of(run)
    corpus = pipeline.prepare(run.dataset, columns)
    reader = Reader(run, columns) if run.dataset.streaming and not run.evaluate else None
    folder.learned({})
    if anew != set() and not isinstance(folder, Onlooker):
        pipeline.learn(columns, reader.sample() if reader else corpus.splits["train"], folder.path / LEARNED)
    if earlier:
        kept = [name for name in pipeline.groups(columns) if anew is not None and name not in anew]
        taken = {name: blob for name, blob in earlier.about.learned.items() if name.split("/")[1] in kept}
        folder.learned(taken, kept)
    known = pipeline.load(columns, folder.path / LEARNED)
    corpus = pipeline.usable(run, columns, corpus, known)
    if corpus.report.dropped:
        folder.say("left out: " + ", ".join(f"{n} {kind}" for kind, n in corpus.report.dropped.items()))
        for line in corpus.report.lines[:LISTED]:
            folder.say(f"    {line}")
    for line in corpus.report.notes:
        folder.say(line)
    if not run.evaluate and not len(corpus.splits["validation"]):
        raise DataError("validation: the data has no such split, by which the best checkpoint is chosen; give it one")
    data = {
        name: batched(run, columns, split, known, name == "train" and not run.evaluate)
        for name, split in corpus.splits.items()
    }
    if reader is None:
        return Parts(columns, data, known, corpus.fingerprint)
    return Parts(columns, data | {"train": Stream(reader, known)}, known, f"{corpus.fingerprint} {reader.fingerprint}")


def connect(run: Run) -> Any:
    """Load the framework and join the other processes of the run; waits for the first."""
    with _held_back():
        return build.load_module("toolkit.training", run.backend).connect(run)


def load_engine(run: Run, learned: Learned, link: Any = None) -> Engine:
    """Load the framework, at last, and build the engine in it.

    Args:
        run: the run's specs.
        learned: tokenizer and state of the features.
        link: of :func:`connect`, where that was called before.
    """
    with _held_back():
        module = build.load_module("toolkit.training", run.backend)
        return module.load_engine(run, learned, link)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Keep what a framework's libraries write to standard error while they load; show it only if they fail."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except UserError:  # which says what is wrong
            raise
        except BaseException:
            file.seek(0)
            os.write(kept, file.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def _source(run: Run) -> Path | None:
    """The folder of the earlier run that this one goes on with or measures; None for a fresh start."""
    here = Path(run.run_dir) if checkpoint.find(Path(run.run_dir) / "checkpoints", "last") else None
    if run.resume == "auto":
        return here
    named = run.evaluate or run.resume
    if here and (named is None or here.resolve() != Path(named).resolve()):
        raise ConfigError(f"run_dir: {here} holds a run; go on with it by resume=auto, or give another folder")
    if named is None:
        return None
    if not checkpoint.find(Path(named) / "checkpoints", "last"):
        raise ConfigError(f"{named}: has no checkpoint to {'measure' if run.evaluate else 'go on from'}")
    return Path(named)


def _facts(run: Run, parts: Parts) -> dict[str, Any]:
    """What a position in a run depends on."""
    return {
        "dataset": parts.fingerprint,
        "seed": run.seed,
        "accumulate": run.trainer.accumulate,
        "plan": parts.data["train"].digest,
    }


def _earlier(run: Run, config: Mapping[str, Any], folder: RunFolder) -> Checkpoint | None:
    """The checkpoint that the run goes on from or measures, once all is refused that needs no data to be refused."""
    source = _source(run)
    if source is None:
        return None
    found = checkpoint.choose(source / "checkpoints", "best" if run.evaluate else "last", folder.say)
    resume.check(run, config, found)
    return found


def _take_over(run: Run, engine: Engine, found: Checkpoint, now: Progress, folder: RunFolder) -> Progress:
    """Put a checkpoint into the engine; returns where the run goes on, under its own facts from here."""
    put(engine, found)
    if run.resume and not isinstance(folder, Onlooker):
        if folder.checkpoints.resolve() == found.path.parent.resolve():
            # a kill may have fallen between the checkpoint and the index, or the last is damaged
            with writing(folder.checkpoints):
                checkpoint.point(folder.checkpoints, found.path.name, found.progress)
        elif best := checkpoint.find(found.path.parent, "best"):
            checkpoint.adopt(best, folder.checkpoints)
    return replace(found.progress, facts=now.facts)


def put(engine: Engine, found: Checkpoint) -> None:
    """Put a checkpoint into the engine.

    Raises:
        ConfigError: it is another model's.
    """
    try:
        engine.load(found.state)
    except ValueError as error:
        raise ConfigError(f"{found.path}: does not fit this model: {error}") from error


def _train(run: Run, engine: Engine, parts: Parts, folder: RunFolder, at: Progress) -> dict[str, float]:
    """Train to the end; returns the seconds it took and the examples a second, validations included."""
    train, valid = parts.data["train"], parts.data["validation"]
    steps = train.steps(run.trainer)
    folder.say(f"{run.recipe}, {run.backend}: {train.describe()}, {steps} steps")
    folder.rewind(at)
    examples, began = train.passed(at), time.perf_counter()
    if run.trainer.loop == "stock" and at.step < steps and at.epoch < run.trainer.max_epochs:
        engine.fit_stock(StockSession(run, engine, train, valid, parts.learned.target, folder, at))
    else:  # of a stock run this is what is left: its last validation, if a kill fell before it
        with contextlib.closing(train):
            loop.fit(run, engine, train, valid, parts.learned.target, folder, at)
    engine.total(np.zeros(1))  # the last checkpoint is there before any process reads it
    seconds = time.perf_counter() - began
    for line in train.notes():
        folder.say(line)
    return {
        "train_seconds": round(seconds, 1),
        "examples_per_second": round((train.passed(at) - examples) / max(seconds, 1e-9), 1),
    }


def _finish(
    run: Run, engine: Engine, parts: Parts, folder: RunFolder, at: Progress, speed: Mapping[str, float], began: float
) -> None:
    """Measure the best checkpoint on every split except ``train``; leave predictions, results and a summary."""
    if not run.evaluate and checkpoint.find(folder.checkpoints, "best"):
        best = checkpoint.choose(folder.checkpoints, "best", folder.say)
        put(engine, best)
        at = best.progress
    predictor = Predictor(run, parts.columns, parts.learned, engine)
    measured, table, milliseconds = results.measure(predictor, parts.data, folder)
    train = parts.data["train"]
    found = {
        "recipe": run.recipe,
        "backend": run.backend,
        "seed": run.seed,
        "metrics": measured,
        "step": at.step,
        "epoch": at.epoch,
        "parameters": results.parameters(run, parts.learned),
        "padding_efficiency": train.efficiency(),
        "examples": {name: len(data.split) for name, data in parts.data.items() if data.split},
        "metric_signatures": run.task.signatures(),
        **speed,
        **milliseconds,
        "wall_seconds": round(time.perf_counter() - began, 1),
        "dataset_fingerprint": parts.fingerprint,
    }
    folder.results(found)
    if table:
        folder.say(table)
    results.summarize(run.task, found, folder)
