"""What both workers compute, and how they are run: each framework in a process of its own, exchanging files."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import toolkit
from toolkit import weights
from toolkit.batch import pad
from toolkit.features.log_mel.spec import LogMel, SpecAugment
from toolkit.spec import is_spec

ROOT = Path(toolkit.__file__).parent
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
SECONDS = (1.4, 0.7, 2.0, 1.05)  # of the made utterances


@dataclasses.dataclass(frozen=True)
class Case:
    """One model on one batch.

    Args:
        name: of the file with its results.
        model: folder under ``toolkit/models``.
        dtype: ``float64`` or ``float32``.
        dropout: rate.
        training: compute the loss, its gradients and what the running statistics become, with SpecAugment; else
            evaluate.
        rows: which of the made utterances are in the batch.
        extra: samples of padding beyond the longest.
        perturbed: backend and name of a parameter that is made different there.
    """

    name: str
    model: str
    dtype: str = "float64"
    dropout: float = 0.0
    training: bool = True
    rows: tuple[int, ...] = (0, 1, 2, 3)
    extra: int = 0
    perturbed: tuple[str, str] | None = None

    def spec(self) -> Any:
        """The model's spec at its defaults but for dropout."""
        return dataclasses.replace(model_specs()[self.model](), dropout=self.dropout)

    def weights(self, backend: str) -> dict[str, np.ndarray]:
        """The canonical initial weights, perturbed by 1e-6 where asked."""
        made = weights.initial(self.spec().parameters(LogMel().bands, VOCABULARY), SEED)
        if self.perturbed and self.perturbed[0] == backend:
            made[self.perturbed[1]] = made[self.perturbed[1]] + np.float32(1e-6)
        return made

    def batch(self) -> dict[str, np.ndarray]:
        """The batch, as a loader would hand it over."""
        features = LogMel()
        waveforms, lengths = pad([waveform(row) for row in self.rows], np.float32)
        frames = [int(n) for n in features.frames(lengths)]
        draws = [features.draw(n, SEED, EPOCH, row) for n, row in zip(frames, self.rows, strict=True)]
        random = [np.random.Generator(np.random.Philox(key=[SEED, row])) for row in self.rows]
        tokens, token_lengths = pad(
            [r.integers(1, VOCABULARY, n // 12) for r, n in zip(random, frames, strict=True)], np.int32
        )
        masked = 1 if self.training else 0
        return {
            "example": np.array(self.rows, np.int64),
            "waveforms": np.pad(waveforms, ((0, 0), (0, self.extra))),
            "waveform_lengths": lengths,
            "tokens": tokens,
            "token_lengths": token_lengths,
            "time_masks": np.stack([masked * time for time, _ in draws]),
            "frequency_masks": np.stack([masked * bands for _, bands in draws]),
        }


def check_kept(given: dict[str, np.ndarray], kept: dict[str, np.ndarray]) -> None:
    """Weights that went into a model must come out of it as they were."""
    assert list(given) and set(given) == set(kept)
    for name, array in given.items():
        assert np.array_equal(array, kept[name]) and kept[name].flags.c_contiguous, name


def waveform(row: int) -> np.ndarray:
    """A made utterance: a gliding voice with harmonics in syllables, and a little noise."""
    random = np.random.Generator(np.random.Philox(key=[17, row]))
    time = np.arange(int(SECONDS[row] * 16000)) / 16000
    phase = 2 * np.pi * np.cumsum(random.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * time))) / 16000
    voice = sum(np.sin(k * phase + random.uniform(0, 6)) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * random.uniform(2, 5) * time), 0, 1)
    return (0.1 * voice * syllables + 0.003 * random.standard_normal(len(time))).astype(np.float32)


def sequences() -> tuple[np.ndarray, np.ndarray]:
    """``(batch, time, channels)`` and lengths; what lies beyond them is no zero."""
    return np.random.Generator(np.random.Philox(key=4)).standard_normal((3, 9, 5)) * 2 + 1, np.array([9, 4, 6])


def feature_specs() -> dict[str, LogMel]:
    """Ways to compute features."""
    return {
        "utterance": LogMel(),
        "training_set": LogMel(normalize="training_set"),
        "none": LogMel(normalize="none", sample_rate=8000, mels=23, window=0.032, hop=0.008, min_frequency=50.0),
        "odd": LogMel(n_fft=1200, window=0.0333, hop=0.0111, max_frequency=7000.0, spec_augment=SpecAugment(0, 0)),
    }


def feature_state(spec: LogMel, folder: Path) -> dict[str, np.ndarray]:
    """What the features learn from two of the made utterances."""
    spec.learn(map(waveform, (0, 1)), folder)
    return spec.load(folder)


def model_specs() -> dict[str, type]:
    """Folder -> spec class, for every model there is."""
    found = {}
    for path in sorted(ROOT.glob("models/*/spec.py")):
        module = importlib.import_module(f"toolkit.models.{path.parent.name}.spec")
        specs = [c for c in vars(module).values() if is_spec(c) and hasattr(c, "parameters")]
        assert len(specs) == 1, f"{path}: expected one model's spec, found {specs}"
        found[path.parent.name] = specs[0]
    return found


def run(cases: list[Case], folder: Path) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Run the cases in both frameworks at the same time.

    Returns:
        backend -> case -> name -> array, in the order in which the model computes them.
    """
    (folder / "cases.json").write_text(json.dumps([dataclasses.asdict(case) for case in cases]))
    start_workers("models", folder)
    return {
        backend: {case.name: dict(np.load(folder / f"{case.name}.{backend}.npz")) for case in cases}
        for backend in ("torch", "tf")
    }


def read(folder: Path) -> list[Case]:
    """The cases that :func:`run` left for its workers."""
    return [
        Case(**{key: tuple(value) if isinstance(value, list) else value for key, value in case.items()})
        for case in json.loads((folder / "cases.json").read_text())
    ]


def start_workers(job: str, folder: Path) -> None:
    """Run the function ``job`` of both workers on ``folder``.

    Raises:
        AssertionError: a worker failed; with the end of what it wrote.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    logs = {backend: folder / f"{job}.{backend}.log" for backend in ("torch", "tf")}
    workers = {}
    for backend, log in logs.items():
        command = [sys.executable, "-m", f"tests.twins.{backend}_worker", job, str(folder)]
        with log.open("w") as out:
            workers[backend] = subprocess.Popen(command, cwd=ROOT.parent, env=environment, stdout=out, stderr=out)
    for backend, worker in workers.items():
        assert worker.wait() == 0, f"the {backend} worker failed:\n{logs[backend].read_text()[-4000:]}"
