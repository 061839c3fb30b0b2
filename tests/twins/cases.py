"""What both workers compute, and how they are run: each framework in a process of its own, exchanging files.

Nothing here names a component. Models, features, tasks and columns are found in the toolkit's folders. A model is
computed under the first task that maps what it maps, with the first features of that task's columns, and a batch is
what ``tests/twins/content`` has for these columns.
"""

from __future__ import annotations

import dataclasses
import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from tests.support import tiny
from tests.support.backend import BACKENDS, ROOT, Backends
from tests.twins.components import features_of, specs, tasks_of, variants
from tests.twins.content.audio import waveform
from tests.twins.content.base import ALONE, ROWS, SEED, Arrays, columns, content
from toolkit.config.spec import is_spec
from toolkit.data.batch import Batch, Fields
from toolkit.data.columns.column import Column, Columns
from toolkit.data.split import batch_fields
from toolkit.features.log_mel.spec import LogMel, SpecAugment
from toolkit.layers import parameters as weights

STEP = 5
STEPS = (0, 7, 2**33 + 1)
# path, rate, shape, native
DROPOUTS = (
    ("first", 0.1, (3, 5, 7), False),
    ("second", 0.1, (3, 5, 7), False),
    ("large", 0.5, (200, 1000), False),
    ("own", 0.5, (200, 1000), True),
)


# --- cases -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """One model on one batch.

    Args:
        model: folder under ``toolkit/models``.
        kind: what the case shows; with the model the name of the files with its results.
        dtype: ``float64`` or ``float32``.
        dropout: rate of every dropout that the model has.
        training: compute the loss, its gradients and what the running statistics become, with augmentation; else
            evaluate, and predict from the inputs.
        graph: in TensorFlow, run as graphs with the signatures that the engine gives them, not operation by operation.
        rows: which of the made examples are in the batch.
        longer: with more padding than the longest example needs.
        perturbed: one parameter is made different in TensorFlow, see :func:`perturbed`.
        mutant: an error that TensorFlow's twin is given, of ``tests.twins.mutants``.
        folders: group -> folder, where task or features are not the first that fit.
        changed: group -> fields of its spec.
        shallow: the model has one layer of each kind, else two.
    """

    model: str
    kind: str
    dtype: str = "float64"
    dropout: float = 0.0
    training: bool = True
    graph: bool = False
    rows: tuple[int, ...] = ROWS
    longer: bool = False
    perturbed: bool = False
    mutant: str = ""
    folders: Mapping[str, str] = dataclasses.field(default_factory=dict)
    changed: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    shallow: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}.{self.kind}"

    def folder(self, group: str) -> str | None:
        """The folder of ``models``, ``tasks`` or ``features``; None where the task needs no features."""
        if group == "models":
            return self.model
        if group in self.folders:
            return self.folders[group]
        if group == "tasks":
            return tasks_of(specs("models")[self.model])[0]
        return next(iter(features_of(specs("tasks")[self.folder("tasks") or ""])), None)

    def spec(self, group: str) -> Any:
        """The small spec of ``models``, ``features`` or ``tasks``.

        A model has the case's rate in every dropout. In features and tasks every rate that is 0 by default is turned
        on: augmentation, smoothing.
        """
        if (folder := self.folder(group)) is None:
            return None
        kind = specs(group)[folder]
        given = turned_on(kind)
        if group == "models":
            given = {f.name: self.dropout for f in dataclasses.fields(kind) if has_dropout(f)}
            layers = 1 if self.shallow else 2
            given |= {f.name: layers for f in dataclasses.fields(kind) if f.name in tiny.LAYERS}
        return tiny.make(kind, **given | dict(self.changed.get(group, {})))

    def columns(self) -> Columns:
        """The columns of the task."""
        task, features = self.spec("tasks"), self.spec("features")
        ends: list[Column[Any]] = []
        for name, role in ((task.input, "input"), (task.target, "target")):
            kind = columns()[name]
            ends.append(kind(name, role, SimpleNamespace(), features if kind.group == "features" else None))
        return Columns(*ends)

    def fields(self, kind: Literal["training", "evaluation", "prediction"]) -> Fields:
        """Fields of a batch."""
        return batch_fields(self.columns(), kind)

    def learned(self) -> list[tuple[Column[Any], Any]]:
        """The columns, each with what it learned."""
        features = self.spec("features")
        return [(column, content(column.kind).learned(features, column.role)) for column in self.columns()]

    def state(self) -> Arrays:
        """What the features learned."""
        return {name: array for column, learned in self.learned() for name, array in column.state(learned).items()}

    def sizes(self) -> tuple[Any, Any]:
        """Inputs and outputs of the model."""
        inputs, outputs = (column.size(learned) for column, learned in self.learned())
        # a model may want the same vocabulary at both ends
        return (outputs if vars(self.spec("models")).get("share_embeddings") else inputs), outputs

    def parameters(self) -> Mapping[str, weights.Parameter]:
        return self.spec("models").parameters(*self.sizes())

    def longer_fields(self) -> dict[str, int]:
        """Field -> what is added to its second axis to make a batch with more padding."""
        made = [content(column.kind).longer.get(column.role, {}) for column in self.columns()]
        return {name: extra for fields in made for name, extra in fields.items()}

    def batch(self) -> Batch:
        """The batch, as a loader would hand it over."""
        made: Batch = {"example": np.array(self.rows, np.int64)}
        for column in self.columns():
            made |= content(column.kind).batch(self.spec("features"), column.role, self.rows, self.training)
        fields = self.fields("training" if self.training else "evaluation")
        assert {name: a.dtype for name, a in made.items()} == {n: np.dtype(d) for n, (_, d) in fields.items()}
        for name, extra in (self.longer_fields() if self.longer else {}).items():
            made[name] = np.pad(made[name], ((0, 0), (0, extra)))
        return made

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a batch that are there when a model predicts."""
        return {name: batch[name] for name in self.fields("prediction")}


def turned_on(kind: type) -> dict[str, Any]:
    """Fields that give every rate of a spec class that is 0 by default another value; nested specs too."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if is_spec(inner := type(field.default)):
            found[field.name] = inner(**turned_on(inner))
        elif isinstance(field.default, float) and not field.default:
            found[field.name] = 0.25
    return found


def has_dropout(field: Any) -> bool:
    return "dropout" in field.name and isinstance(field.default, float)


def perturbed(names: Iterable[str], parameters: Mapping[str, Any]) -> tuple[str, str]:
    """An intermediate in the middle of a model, and a parameter of the part that computes it.

    Args:
        names: of the intermediates, in the order of computation.
        parameters: of the model, by canonical name.

    Raises:
        AssertionError: no intermediate is named after a part, so a difference could not be told from its name.
    """
    parts = [(n, [p for p in parameters if p.startswith(f"{n}.") and parameters[p].trainable]) for n in names]
    held = [(name, inside[0]) for name, inside in parts if inside]
    assert held, "no intermediate has the name of a part of the model (its canonical path)"
    return held[len(held) // 2]


def cases_of(model: str) -> list[Case]:
    """Everything that is computed for one model."""
    made = [
        Case(model, "wide"),
        Case(model, "dropout", dropout=0.2),
        Case(model, "narrow", dtype="float32", dropout=0.2, graph=True, shallow=True),
        Case(model, "reference", dropout=0.2, shallow=True),  # of the one above
        Case(model, "perturbed", perturbed=True),
        Case(model, "together", training=False),
        *(Case(model, f"alone{row}", training=False, rows=(row,)) for row in ALONE),
    ]
    if made[0].longer_fields():
        made.append(Case(model, "longer", longer=True))
    return made + list(others(model))


def others(model: str) -> Iterator[Case]:
    """The model with each of its options; and if it is the first of its kind, with every task and all features."""
    case, models = Case(model, ""), specs("models")
    chosen: list[tuple[str, str]] = [("models", model)]
    if model == next(name for name, kind in models.items() if tasks_of(kind) == tasks_of(models[model])):
        chosen += [("tasks", name) for name in tasks_of(models[model])]
        chosen += [("features", name) for name in features_of(specs("tasks")[case.folder("tasks") or ""])]
    for group, folder in chosen:
        folders = {} if group == "models" else {group: folder}
        if folder != case.folder(group):
            yield Case(model, folder, folders=folders, shallow=True)
        for fields in variants(specs(group)[folder]):
            shown = ",".join(f"{name}={value}" for name, value in fields.items())
            yield Case(model, f"{folder}.{shown}", folders=folders, changed={group: fields}, shallow=True)


def answers_of(model: str) -> list[Case]:
    """The model's answers under each task; in float32 in two graphs, one of which evaluates, as in an engine."""
    made = []
    for task in tasks_of(specs("models")[model]):
        common: dict[str, Any] = {"training": False, "folders": {"tasks": task}}
        made.append(Case(model, f"answers.{task}.float64", **common))
        made.append(Case(model, f"answers.{task}.float32", "float32", graph=True, shallow=True, **common))
    return made


def answers(task: Any, evaluated: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]) -> Arrays:
    """The arrays of an evaluation and of a prediction, once ``predict`` is seen to give the outputs of ``evaluate``.

    Args:
        task: spec.
        evaluated: outputs and figures.
        predicted: from the inputs; empty where the task is autoregressive.
    """
    outputs = {name: array for name, array in evaluated.items() if name not in task.measured}
    assert set(task.measured) <= set(evaluated), f"evaluate gives {set(evaluated)}, measured are {task.measured}"
    assert set(outputs) == set(predicted), f"evaluate gives {set(outputs)}, predict {set(predicted)}"
    for name, array in outputs.items():
        other = predicted[name]
        same = (array.dtype, array.shape) == (other.dtype, other.shape) and array.tobytes() == other.tobytes()
        assert same, f"predict gives other {name} than evaluate"
    return dict(evaluated) | {f"predict.{name}": array for name, array in predicted.items()}


# --- running ---------------------------------------------------------------------------------------------------------


def run(backends: Backends, cases: list[Case], folder: Path) -> None:
    """Run the cases in both frameworks at the same time; :func:`result` has what they gave."""
    (folder / "cases.json").write_text(json.dumps([dataclasses.asdict(case) for case in cases]))
    start_workers(backends, "models", folder)


def result(folder: Path, backend: str, case: str) -> Arrays:
    """Name -> array, in the order in which the model computes them.

    Raises:
        AssertionError: the case failed there; with the traceback.
    """
    failed = folder / f"{case}.{backend}.txt"
    assert not failed.exists(), f"{case} failed with backend={backend}:\n{failed.read_text()}"
    return dict(np.load(folder / f"{case}.{backend}.npz"))


def work(backend: str, compute: Callable[[Case, Arrays], Arrays], folder: Path) -> None:
    """What a worker does: each case's arrays into a file, or the traceback.

    Args:
        compute: a case and the weights to put into its model -> the arrays.
    """
    order: dict[str, list[str]] = {}  # model -> names in its first case
    for case in read(folder):
        try:
            given = weights.initial(case.parameters(), SEED)
            if case.perturbed and backend == "tf":
                _, parameter = perturbed(order[case.model], case.parameters())
                value = given[parameter]  # of alternating sign, as a normalisation takes away what all have in common
                given[parameter] = value + np.resize(np.array([1e-6, -1e-6], np.float32), value.shape)
            arrays = compute(case, given)
            order.setdefault(case.model, list(arrays))
            np.savez(folder / f"{case.name}.{backend}.npz", **arrays)
        except Exception:
            (folder / f"{case.name}.{backend}.txt").write_text(traceback.format_exc())


def read(folder: Path) -> list[Case]:
    """The cases that :func:`run` left for its workers."""
    return [
        Case(**{key: tuple(value) if isinstance(value, list) else value for key, value in case.items()})
        for case in json.loads((folder / "cases.json").read_text())
    ]


def check_kept(given: Arrays, kept: Arrays) -> None:
    """Weights that went into a model must come out of it as they were."""
    assert list(given) and set(given) == set(kept)
    for name, array in given.items():
        assert np.array_equal(array, kept[name]) and kept[name].flags.c_contiguous, name


def start_workers(backends: Backends, job: str, folder: Path) -> None:
    """Run the function ``job`` of both workers on ``folder``.

    Raises:
        AssertionError: a worker failed; with the end of what it wrote.
    """
    started = {name: backends[name].start(f"tests.twins.{name}_worker", job, folder, cwd=ROOT) for name in BACKENDS}
    for name, worker in started.items():
        assert worker.wait(1500) == 0, f"the {name} worker failed:\n{worker.stderr[-4000:]}"


# --- parts by themselves ---------------------------------------------------------------------------------------------


def sequences() -> tuple[np.ndarray, np.ndarray]:
    """``(batch, time, channels)`` and lengths; what lies beyond them is no zero."""
    return np.random.Generator(np.random.Philox(key=4)).standard_normal((3, 9, 5)) * 2 + 1, np.array([9, 4, 6])


def pixels() -> np.ndarray:
    """``(batch, channels, height, width)``: enough of them for sums in float32 to lose digits, and none around zero."""
    return np.random.Generator(np.random.Philox(key=6)).standard_normal((64, 3, 32, 32)) ** 2


def feature_specs() -> dict[str, LogMel]:
    """Ways to compute log-mel features."""
    return {
        "utterance": LogMel(),
        "training_set": LogMel(normalize="training_set"),
        "none": LogMel(normalize="none", sample_rate=8000, mels=23, window=0.032, hop=0.008, min_frequency=50.0),
        "odd": LogMel(n_fft=1200, window=0.0333, hop=0.0111, max_frequency=7000.0, spec_augment=SpecAugment(0, 0)),
    }


def feature_state(spec: LogMel, folder: Path) -> Arrays:
    """What the features learn from two of the made utterances."""
    spec.learn(map(waveform, (0, 1)), folder)
    return spec.load(folder)
