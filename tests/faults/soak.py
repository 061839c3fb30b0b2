"""``scripts/soak KILLS [SEED]``: runs that are killed again and again, held against twins that nothing disturbed.

A third of the kills are aimed at a random one of the remaining steps, a fifth at a random moment of the start-up, the
others at a save, a validation or the final evaluation, which are short. A twin has no loader
workers, whether the run has any or not. Some processes are started from the command line, framework and all; most are
forked from one that has imported the framework already.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.backend import Backends
from tests.workers.killable import PHASES

from . import disk
from .runs import STEPS, Attempt, Starter, arguments, differences, fresh, gone, newest, resumed, taken, until

# of a hundred kills; those with loader processes, and those of TensorFlow's larger graphs, take the longest
SHARES = {
    ("image_classification", "torch", 0): 15,
    ("image_classification", "tf", 0): 14,
    ("asr", "torch", 0): 15,
    ("asr", "tf", 0): 10,
    ("translation", "torch", 0): 15,
    ("translation", "tf", 0): 5,
    ("image_classification", "torch", 2): 4,
    ("image_classification", "tf", 2): 6,
    ("asr", "torch", 2): 4,
    ("asr", "tf", 2): 5,
    ("translation", "torch", 2): 4,
    ("translation", "tf", 2): 3,
}
COLD = 0.05  # share of the processes that are started from the command line
# shares of the kills, and the seconds after the beginning of the phase in which they fall
AIMED = {"save": (0.25, 0.05), "validation": (0.13, 0.3), "final evaluation": (0.08, 0.5), "start-up": (0.19, 2.0)}


@dataclass
class Cell:
    """What happened to one recipe on one backend."""

    fell: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    diverged: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def aim(attempt: Attempt, folder: Path, draw: random.Random) -> None:
    """Return at the moment of the kill, or when the run is over."""
    at, before = draw.random(), max(0, newest(folder))
    for phase, (share, seconds) in AIMED.items():
        at -= share
        if at < 0:
            for _ in range(draw.randint(1, 4) if phase == "save" else 1):
                until(lambda: attempt.phase == phase or not attempt.running)  # noqa: B023
                until(lambda: attempt.phase != phase or not attempt.running, draw.uniform(0, seconds))  # noqa: B023
            return
    until(lambda: attempt.phase == "step" or not attempt.running)  # the log is cut to the checkpoint before
    step = draw.randint(before, before + max(1, (STEPS - before) // 2))  # nearer ones, so that a run is killed often
    until(lambda: taken(folder) >= step or not attempt.running)
    until(lambda: not attempt.running, draw.uniform(0, 0.05))


def soak(
    cell: tuple[str, str, int], kills: int, starter: Starter, work: Path, draw: random.Random, found: Cell
) -> None:
    """Kill one kind of run so many times, and then let it end.

    Args:
        cell: recipe, backend, loader workers.
        kills: how many.
        starter: of the backend.
        work: a folder.
        draw: the moments.
        found: what comes of it.
    """
    recipe, backend, workers = cell
    log = work / "console.log"
    twin = work / f"{recipe}-{backend}"
    if not (twin / "results.json").exists():
        code = starter.begin(arguments(recipe, backend, work / "data", fresh(twin)), log).wait()
        assert code == 0, f"the twin of {recipe}, {backend} ended with {code}: see {log}"
    folder = fresh(work / f"{recipe}-{backend}-{workers}")
    own = arguments(recipe, backend, work / "data", folder, f"trainer.workers={workers}")
    while True:
        over = found.fell.total() >= kills
        before = newest(folder)
        attempt = starter.begin(own, log, cold=draw.random() < COLD)
        if not over:
            aim(attempt, folder, draw)
        children, phase = (attempt.children, attempt.phase) if not over else (set(), "")
        if not over and attempt.running:
            attempt.kill()
        code = attempt.wait()
        if code == -9:
            found.fell[phase] += 1
            say = f"killed {found.fell.total()} of {kills} in {phase}, last checkpoint {newest(folder)}"
            print(f"{recipe} {backend} {workers} workers: {say}", flush=True)
        if not gone(children):
            found.lost.append(f"{folder}: orphans")
        if code not in (-9, 0):
            found.lost.append(f"{folder}: exit code {code}, see {log}")
            folder = fresh(folder)
        elif phase not in ("start-up", "") and resumed(folder) < before:
            found.lost.append(f"{folder}: went on from step {resumed(folder)}, had a checkpoint of step {before}")
        if code == 0:
            found.runs += 1
            different = differences(folder, twin)
            print(f"{recipe} {backend} {workers} workers: run {found.runs} over, {different or 'equal'}", flush=True)
            if different:
                found.diverged.append(f"{folder}: {different}")
            if over:
                return
            folder = fresh(folder)


def table(cells: dict[tuple[str, str, int], Cell]) -> str:
    """All that happened, in Markdown."""
    lines = [f"| recipe | backend | workers | kills | {' | '.join(PHASES)} | runs | divergences | lost runs |"]
    lines.append("|---|---|---" + "|---:" * (len(PHASES) + 4) + "|")
    total: Counter[str] = Counter()
    for (recipe, backend, workers), cell in cells.items():
        counts = [cell.fell.total(), *(cell.fell[p] for p in PHASES)]
        counts += [cell.runs, len(cell.diverged), len(cell.lost)]
        total.update(dict(zip(map(str, range(len(counts))), counts, strict=True)))
        lines.append(f"| {recipe} | {backend} | {workers} | {' | '.join(map(str, counts))} |")
    sums = " | ".join(str(total[str(i)]) for i in range(len(PHASES) + 4))
    return "\n".join([*lines, f"| all | | | {sums} |"])


def main(kills: int, seed: int, work: Path) -> int:
    """Do it all; returns the exit code."""
    cells = {cell: Cell() for cell in SHARES}
    draw = random.Random(seed)
    began = time.monotonic()
    try:
        with Backends(work) as backends:
            for cell, share in SHARES.items():
                starter = Starter(backends[cell[1]], work)
                soak(cell, max(1, round(share * kills / 100)), starter, work, draw, cells[cell])
    finally:
        print(f"\n{table(cells)}\n\nseed {seed}, {(time.monotonic() - began) / 60:.0f} minutes")
    for fault in ("kill", "power", "full", "once"):
        found = disk.main(work / f"disk-{fault}", fault, "none")
        print(f"{fault} at each of {found['operations']} operations on files: {len(found['wrong'])} went wrong")
        cells["asr", "torch", 0].lost += [f"{fault} at operation {k}: {why}" for k, why in found["wrong"].items()]
    bad = [line for cell in cells.values() for line in (*cell.diverged, *cell.lost)]
    print("\n".join(bad))
    return int(bool(bad))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"runs and logs: {folder}", flush=True)
    code = main(given[0], given[1] if len(given) > 1 else 0, folder)
    if code == 0:  # otherwise they may say why
        shutil.rmtree(folder)
    sys.exit(code)
