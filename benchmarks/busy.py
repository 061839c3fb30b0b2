"""Compare the speed of a training that has the machine to itself with that of two beside each other.

    python benchmarks/busy.py RECIPE BACKEND [SECONDS] [ROUNDS] [OVERRIDE ...]

Each training is the command ``toolkit run`` in a process of its own, with as many threads as it starts by itself. In
every round there is one training alone and then two at once, with the commands' own policy, with waiting threads that
sleep (``PASSIVE``) and with ones that spin (``ACTIVE``). Prints a row of a Markdown table for each of them: steps per
second alone and of each of the two, the share that each gets, and the longest step.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NEVER = 10**9  # steps
POLICIES = {"own": {}, "PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"}, "ACTIVE": {"OMP_WAIT_POLICY": "ACTIVE"}}


def start(folder: Path, words: list[str], policy: str) -> subprocess.Popen[bytes]:
    settings = [f"run_dir={folder}", "trainer.log_every=1", f"trainer.max_steps={NEVER}", "trainer.max_epochs=100000"]
    settings += [f"trainer.validate_every={NEVER}", f"trainer.checkpoint_every={NEVER}", "trainer.patience=null"]
    command = [sys.executable, "-m", "toolkit.run", *words, *settings]
    return subprocess.Popen(
        command,
        env=os.environ | POLICIES[policy],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def times(folder: Path) -> list[float]:
    """Return the Unix time at the end of each step so far, in seconds."""
    file = folder / "metrics.jsonl"
    rows = (
        [json.loads(line) for line in file.read_text().splitlines(True) if line.endswith("\n")] if file.exists() else []
    )
    return [row["time"] for row in rows if row["split"] == "train"]


def measured(count: int, words: list[str], policy: str, seconds: float) -> list[tuple[float, float]]:
    """Train ``count`` runs at once; return steps per second and longest step, in seconds, of each.

    Only the time in which all of them train counts.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folders = [Path(temporary, str(number)) for number in range(count)]
        processes = [start(folder, words, policy) for folder in folders]
        while not all(len(times(folder)) > 2 for folder in folders):  # the first steps compile
            if any(process.poll() is not None for process in processes):
                sys.exit("a training ended; try its command by itself")
            time.sleep(0.2)
        begin = max(times(folder)[2] for folder in folders)
        time.sleep(seconds)
        found = []
        for folder in folders:
            within = [moment for moment in times(folder) if begin <= moment <= begin + seconds]
            steps = [after - before for before, after in itertools.pairwise(within)]
            found.append((len(within) / seconds, max(steps, default=seconds)))
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
        return found


def main(recipe: str, backend: str, seconds: float, rounds: int, overrides: list[str]) -> None:
    words = [f"recipe={recipe}", f"backend={backend}", *overrides]
    for number in range(rounds):
        for policy in list(POLICIES)[:: -1 if number % 2 else 1]:
            ((alone, _),) = measured(1, words, policy, seconds)
            both = measured(2, words, policy, seconds)
            each = ", ".join(f"{speed:.2f}" for speed, _ in both)
            share = ", ".join(f"{speed / alone:.0%}" for speed, _ in both)
            longest = max(step for _, step in both)
            print(f"| {recipe} | {backend} | {policy} | {alone:.2f} | {each} | {share} | {longest:.2f} s |", flush=True)


if __name__ == "__main__":
    recipe, backend, *more = sys.argv[1:]
    numbers = [word for word in more if word.replace(".", "", 1).isdigit()]
    seconds, rounds = (float(numbers[0]) if numbers else 30.0, int(numbers[1]) if len(numbers) > 1 else 1)
    main(recipe, backend, seconds, rounds, [word for word in more if word not in numbers])
