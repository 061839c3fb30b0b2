"""Compare the losses of the same steps on one device and on several, for each backend and precision.

    python benchmarks/devices.py RECIPE [STEPS] [DEVICES] [OVERRIDE ...]
    python benchmarks/devices.py translation trainer=fsdp     # torch only, with the memory of a process

Trains ``STEPS`` steps (20) on one device and on ``DEVICES`` (2), with both backends in float64 and float32, with the
toolkit's loop and engines, over data that is prepared once, without validations. Prints a row of a Markdown table for
each backend and precision. torchrun starts the processes of torch; TensorFlow has one process. With ``trainer=fsdp`` a
second table has the MB of weights, moments and averages in the process with the most.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.training.engine import Engine, StepResult
from toolkit.training.wrapper import EngineWrapper

BACKENDS = ("torch", "tf")
NEVER = 10**9  # steps


class Recorded(EngineWrapper):
    """Engine that keeps its losses, and ends the loop after ``steps`` steps."""

    def __init__(self, engine: Engine, steps: int) -> None:
        super().__init__(engine)
        self.steps = steps
        self.losses: list[float] = []

    def train_step(self, batches: list[Any], lr: float, position: int, scale: float = 1.0) -> StepResult:
        if len(self.losses) == self.steps:
            raise StopIteration
        result = self.engine.train_step(batches, lr, position, scale)
        self.losses.append(result.loss)
        return result


def train(folder: Path, steps: int, overrides: list[str]) -> None:
    """Train in one process; each process writes ``held-N.npy`` into ``folder``, and the first one ``losses.npy``."""
    from toolkit.config import process
    from toolkit.config import schema as config

    run = config.check(overrides)
    process.prepare(run.backend)
    from toolkit.runs import job
    from toolkit.runs.folder import Onlooker
    from toolkit.training import loop
    from toolkit.training.progress import Progress
    from toolkit.training.session import Session

    prepared = Onlooker(Path(run.run_dir))
    parts = job.prepare(run, prepared)
    recorded = Recorded(job.build_engine(run, parts.learned), steps)
    target = parts.learned.target
    with contextlib.suppress(StopIteration):
        loop.fit(Session(run, recorded, parts.train, parts.data["validation"], target, prepared, Progress()))
    if run.backend == "torch":
        np.save(folder / f"held-{recorded.rank}.npy", memory(recorded.engine))
    if not recorded.rank:
        np.save(folder / "losses.npy", recorded.losses)


def memory(engine: Any) -> int:
    """Count the bytes of weights, moments and averages in this process of a torch run."""
    from toolkit.layers.torch import part

    moments = [x for state in engine.optimizer.state.values() for x in state.values() if x.ndim]
    return sum(part(x).nbytes for x in (*engine.model.parameters(), *moments, *engine.averages.values.values()))


def prepare(overrides: list[str]) -> None:
    """Fetch and decode the data, and write tokenizer and features into the run folder."""
    from toolkit.config import process
    from toolkit.config import schema as config

    run = config.check(overrides)
    process.prepare(run.backend)
    from toolkit.runs import job
    from toolkit.runs.folder import RunFolder

    folder = RunFolder(Path(run.run_dir))
    job.prepare(run, folder)
    folder.close()


def measured(folder: Path, backend: str, precision: str, devices: int, steps: int, words: list[str]) -> Any:
    """Return ``(steps,)`` losses of a training, and the largest :func:`memory` of its processes (0 for TensorFlow)."""
    here = folder / f"{backend}-{precision}-{devices}"
    here.mkdir()
    settings = [f"backend={backend}", f"trainer.precision={precision}", f"trainer.devices={devices}"]
    settings += [f"trainer.validate_every={NEVER}", f"trainer.checkpoint_every={NEVER}"]
    several = backend == "torch" and devices > 1
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)] if several else []
    command = [sys.executable, *start, __file__, "--train", str(here), str(steps), *words, *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return np.load(here / "losses.npy"), max((int(np.load(file)) for file in here.glob("held-*.npy")), default=0)


def main(recipe: str, steps: int, devices: int, overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        words = [f"recipe={recipe}", f"run_dir={folder / 'prepared'}", *overrides]
        subprocess.run([sys.executable, __file__, "--prepare", *words], check=True, stdout=subprocess.DEVNULL)
        sharded = "trainer=fsdp" in overrides
        table = []
        for backend in ("torch",) if sharded else BACKENDS:
            for precision in ("64", "32"):
                (one, alone), (many, shared) = (
                    measured(folder, backend, precision, count, steps, words) for count in (1, devices)
                )
                table.append(f"| {recipe} | float{precision} | {alone / 1e6:.1f} | {shared / 1e6:.1f} |")
                assert len(one) == len(many) == steps
                apart = np.abs(many - one) / np.abs(one)
                print(
                    f"| {recipe} | {backend} | float{precision} | {apart[0]:.1e} | {apart.max():.1e} | {one[0]:.4f} | "
                    f"{one[-1]:.4f} |",
                    flush=True,
                )
        if sharded:
            print("\n".join(table))


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--train"]:
        train(Path(words[1]), int(words[2]), words[3:])
    elif words[:1] == ["--prepare"]:
        prepare(words[1:])
    elif words:
        numbers = [int(words.pop(1)) for _ in range(2) if len(words) > 1 and words[1].isdigit()]
        main(words[0], *(numbers + [20, 2][len(numbers) :]), words[1:])
    else:
        sys.exit(__doc__)
