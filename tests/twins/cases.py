"""What both workers compute, and how they are run: each framework in a process of its own, exchanging files.

Nothing here names a component. Models, features and tasks are found in the toolkit's folders; what a batch looks like
follows from the domain alone.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

import toolkit
from tests.support import tiny
from toolkit.config import source as recipe_source
from toolkit.config.spec import is_spec, problems
from toolkit.data.batch import Batch, pad
from toolkit.features.log_mel.spec import LogMel, SpecAugment
from toolkit.layers import parameters as weights

Arrays = dict[str, np.ndarray]

ROOT = Path(toolkit.__file__).parent
BACKENDS = ("torch", "tf")
VOCABULARY = 29
SEED = 11
EPOCH = 3
STEP = 5
STEPS = (0, 7, 2**33 + 1)
# path, rate, shape, native
DROPOUTS = (
    ("first", 0.1, (3, 5, 7), False),
    ("second", 0.1, (3, 5, 7), False),
    ("large", 0.5, (200, 1000), False),
    ("own", 0.5, (200, 1000), True),
)
ROWS = (0, 1, 2, 3)  # of the made examples
SECONDS = (1.4, 0.7, 2.0, 1.05)  # of the made utterances


# --- components ------------------------------------------------------------------------------------------------------


def components(group: str) -> dict[str, type]:
    """Folder -> the component's spec class, for every folder of ``models``, ``features`` or ``tasks``."""
    found = {}
    for path in sorted(ROOT.glob(f"{group}/*/spec.py")):
        module = importlib.import_module(f"toolkit.{group}.{path.parent.name}.spec")
        specs = [
            c for c in vars(module).values() if is_spec(c) and c.__module__ == module.__name__ and hasattr(c, "domains")
        ]
        assert len(specs) == 1, f"{path}: expected one spec with domains, found {specs}"
        found[path.parent.name] = specs[0]
    return found


def of_domain(group: str, domain: str) -> str:
    """The first component of a group that is made for a domain."""
    for name, kind in components(group).items():
        if domain in kind.domains:
            return name
    raise AssertionError(f"toolkit/{group}: nothing for {domain}, which a model wants")


def variants(kind: type) -> Iterator[dict[str, Any]]:
    """Fields that make other small specs of a class than the default.

    They are those of the options in ``conf/``, and one at a time every other choice where a field has choices and every
    switch turned over.
    """
    found = [fields for target, fields in named() if target == f"{kind.__module__}.{kind.__qualname__}"]
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, default = hints[field.name], field.default
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        for other in (not default,) if hint is bool else choices:
            # what also needs another field has an option; of native dropout the masks differ by design
            if other != default and "native" not in field.name and not list(problems(kind(**{field.name: other}))):
                found.append({field.name: other})
    seen = [tiny.make(kind)]
    for fields in found:
        if (small := tiny.make(kind, **fields)) not in seen:
            seen.append(small)
            yield fields


def named() -> Iterator[tuple[str | None, dict[str, Any]]]:
    """What the options in ``conf/`` name, with the fields that they set."""
    for group in ("model", "features", "task"):
        for name in recipe_source.options(group):
            target, fields = recipe_source.own_fields(group, name)
            yield target, {key: value for key, value in fields.items() if not str(value).startswith("${")}


# --- batches, by domain ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Domain:
    """What the tests know about a kind of data.

    Args:
        batch: ``(features spec, rows, training)`` -> a batch with the fields of ``data.batch``; drawn augmentation
            in training only.
        raw: what features learn from.
        sizes: features spec -> inputs and outputs of a model.
        longer: field -> what is added to its second axis to make a batch with more padding.
    """

    batch: Callable[[Any, Sequence[int], bool], Batch]
    raw: Callable[[], Iterable[Any]]
    sizes: Callable[[Any], tuple[Any, int]]
    longer: Mapping[str, int]


def random(row: int, stream: int = SEED) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[stream, row]))


def waveform(row: int) -> np.ndarray:
    """A made utterance: a gliding voice with harmonics in syllables, and a little noise."""
    draw = random(row, 17)
    time = np.arange(int(SECONDS[row] * 16000)) / 16000
    phase = 2 * np.pi * np.cumsum(draw.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * time))) / 16000
    voice = sum(np.sin(k * phase + draw.uniform(0, 6)) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * draw.uniform(2, 5) * time), 0, 1)
    return (0.1 * voice * syllables + 0.003 * draw.standard_normal(len(time))).astype(np.float32)


def speech(features: Any, rows: Sequence[int], training: bool) -> Batch:
    """Made utterances with as many tokens as CTC can take."""
    waveforms, lengths = pad([waveform(row) for row in rows], np.float32)
    frames = [int(n) for n in features.frames(lengths)]
    draws = [features.draw(n, SEED, EPOCH, row) for n, row in zip(frames, rows, strict=True)]
    tokens, token_lengths = pad(
        [random(row).integers(1, VOCABULARY, n // 12) for row, n in zip(rows, frames, strict=True)], np.int32
    )
    return {
        "example": np.array(rows, np.int64),
        "waveforms": waveforms,
        "waveform_lengths": lengths,
        "tokens": tokens,
        "token_lengths": token_lengths,
        "time_masks": np.stack([training * time for time, _ in draws]),
        "frequency_masks": np.stack([training * bands for _, bands in draws]),
    }


SOURCE_VOCABULARY = 23
SOURCE_TOKENS, TARGET_TOKENS = (5, 9, 1, 7), (8, 4, 6, 0)


def translation(features: Any, rows: Sequence[int], training: bool) -> Batch:
    """Made pairs of sentences; one has a single token, another is translated by nothing."""
    sources = [random(row, 1).integers(1, SOURCE_VOCABULARY, SOURCE_TOKENS[row]) for row in rows]
    targets = [random(row, 2).integers(1, VOCABULARY, TARGET_TOKENS[row]) for row in rows]
    (source, source_lengths), (tokens, token_lengths) = pad(sources, np.int32), pad(targets, np.int32)
    return {
        "example": np.array(rows, np.int64),
        "source": source,
        "source_lengths": source_lengths,
        "tokens": tokens,
        "token_lengths": token_lengths,
    }


BEAM, WALK = 2, 4


def walk(rows: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens and parents, ``(rows * BEAM,)`` int32 each, of some steps of a search; none crosses an example."""
    first = np.arange(len(rows) * BEAM, dtype=np.int32) // BEAM * BEAM
    draws = [random(row, 5) for row in rows]
    for step in range(WALK):
        tokens = [draw.integers(0, VOCABULARY, BEAM) if step else np.zeros(BEAM) for draw in draws]
        parents = [draw.integers(0, BEAM, BEAM) for draw in draws]
        yield np.concatenate(tokens).astype(np.int32), first + np.concatenate(parents).astype(np.int32)


HEIGHT, WIDTH, CLASSES = 12, 20, 7  # what two strides of 2 leave is odd


def picture(row: int) -> np.ndarray:
    """A made picture: patches of colour and some noise."""
    draw = random(row, 4)
    patches = np.kron(draw.integers(0, 200, (4, 5, 3)), np.ones((3, 4, 1), int))
    return (patches + draw.integers(0, 55, (HEIGHT, WIDTH, 3))).astype(np.uint8)


def images(features: Any, rows: Sequence[int], training: bool) -> Batch:
    """Made pictures; what is cut out of some reaches beyond their edges."""
    count = len(rows)
    draws = [random(row, 3) for row in rows]
    whole = np.tile(np.array([0, 0, HEIGHT, WIDTH], np.int32), (count, 1))
    nothing = np.zeros((count, 4), np.int32)
    drawn = [(d.integers(-4, 5, 2), d.integers(6, 18, 2), d.random() < 0.5, d.integers(0, 5, 4)) for d in draws]
    return {
        "example": np.array(rows, np.int64),
        "images": np.stack([picture(row) for row in rows]),
        "labels": np.array([draw.integers(CLASSES) for draw in draws], np.int32),
        "boxes": np.stack([np.concatenate(d[:2]) for d in drawn]).astype(np.int32) if training else whole,
        "flips": np.array([d[2] and training for d in drawn], np.bool_),
        "erased": np.stack([d[3] for d in drawn]).astype(np.int32) if training else nothing,
        "partners": ((np.arange(count) + training) % count).astype(np.int32),
        "shares": np.array([d.random() if training else 1.0 for d in draws], np.float32),
    }


DOMAINS = {
    "speech": Domain(
        speech,
        lambda: map(waveform, ROWS),
        lambda features: (features.bands, VOCABULARY),
        {"waveforms": 9000, "tokens": 3},
    ),
    "translation": Domain(
        translation, lambda: (), lambda features: (SOURCE_VOCABULARY, VOCABULARY), {"source": 4, "tokens": 3}
    ),
    "images": Domain(
        images, lambda: map(picture, ROWS), lambda features: (features.shape(HEIGHT, WIDTH, 3), CLASSES), {}
    ),
}


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
            evaluate.
        graph: in TensorFlow, run as a graph with the signature that the trainer gives it, not operation by operation.
        rows: which of the made examples are in the batch.
        longer: with more padding than the longest example needs.
        perturbed: one parameter is made different in TensorFlow, see :func:`perturbed`.
        mutant: an error that TensorFlow's twin is given, of ``tests.twins.mutants``.
        folders: group -> folder, where features or task are not the first of the model's domain.
        changed: group -> fields of its spec.
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

    @property
    def name(self) -> str:
        return f"{self.model}.{self.kind}"

    @property
    def domain(self) -> str:
        return components("models")[self.model].domains[0]

    def spec(self, group: str) -> Any:
        """The small spec of ``models``, ``features`` or ``tasks``.

        A model has the case's rate in every dropout. In features and tasks every rate that is 0 by default is turned
        on: augmentation, smoothing.
        """
        first = self.model if group == "models" else of_domain(group, self.domain)
        kind = components(group)[self.folders.get(group, first)]
        rates = {f.name: self.dropout for f in dataclasses.fields(kind) if has_dropout(f)}
        rates = rates if group == "models" else turned_on(kind)
        return tiny.make(kind, **rates | dict(self.changed.get(group, {})))

    def state(self) -> Arrays:
        """What the features learned."""
        with tempfile.TemporaryDirectory() as folder:
            features = self.spec("features")
            features.learn(DOMAINS[self.domain].raw(), Path(folder))
            return features.load(Path(folder))

    def sizes(self) -> tuple[Any, int]:
        """Inputs and outputs of the model."""
        inputs, outputs = DOMAINS[self.domain].sizes(self.spec("features"))
        # a model may want the same vocabulary at both ends
        return (outputs if getattr(self.spec("models"), "share_embeddings", False) else inputs), outputs

    def parameters(self) -> Mapping[str, weights.Parameter]:
        return self.spec("models").parameters(*self.sizes())

    def batch(self) -> Batch:
        """The batch, as a loader would hand it over."""
        domain = DOMAINS[self.domain]
        made = domain.batch(self.spec("features"), self.rows, self.training)
        fields = self.spec("tasks").fields
        assert {name: a.dtype for name, a in made.items()} == {n: np.dtype(d) for n, (_, d) in fields.items()}
        for name, extra in (domain.longer if self.longer else {}).items():
            made[name] = np.pad(made[name], ((0, 0), (0, extra)))
        return made


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
        Case(model, "narrow", dtype="float32", dropout=0.2, graph=True),
        Case(model, "perturbed", perturbed=True),
        Case(model, "together", training=False),
        *(Case(model, f"alone{row}", training=False, rows=(row,)) for row in ROWS),
    ]
    if DOMAINS[made[0].domain].longer:
        made.append(Case(model, "longer", longer=True))
    return made + list(others(model))


def others(model: str) -> Iterator[Case]:
    """The model with each of its options; and if it is the first of its domain, with every features and every task."""
    domain = Case(model, "").domain
    chosen = [("models", model)]
    if model == of_domain("models", domain):
        chosen += [(g, n) for g in ("features", "tasks") for n, k in components(g).items() if domain in k.domains]
    for group, folder in chosen:
        folders = {} if group == "models" else {group: folder}
        if folders and folder != of_domain(group, domain):
            yield Case(model, folder, folders=folders)
        for fields in variants(components(group)[folder]):
            shown = ",".join(f"{name}={value}" for name, value in fields.items())
            yield Case(model, f"{folder}.{shown}", folders=folders, changed={group: fields})


# --- running ---------------------------------------------------------------------------------------------------------


def run(cases: list[Case], folder: Path) -> None:
    """Run the cases in both frameworks at the same time; :func:`result` has what they gave."""
    (folder / "cases.json").write_text(json.dumps([dataclasses.asdict(case) for case in cases]))
    start_workers("models", folder)


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


def start_workers(job: str, folder: Path) -> None:
    """Run the function ``job`` of both workers on ``folder``.

    Raises:
        AssertionError: a worker failed; with the end of what it wrote.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    logs = {backend: folder / f"{job}.{backend}.log" for backend in BACKENDS}
    workers = {}
    for backend, log in logs.items():
        command = [sys.executable, "-m", f"tests.twins.{backend}_worker", job, str(folder)]
        with log.open("w") as out:
            workers[backend] = subprocess.Popen(command, cwd=ROOT.parent, env=environment, stdout=out, stderr=out)
    for backend, worker in workers.items():
        assert worker.wait() == 0, f"the {backend} worker failed:\n{logs[backend].read_text()[-4000:]}"


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
