"""Compare the losses of a run that changes framework twice with those of runs that do not, and plot them.

    python benchmarks/change_framework.py RECIPE FOLDER [STEPS] [OVERRIDE ...]

Trains ``STEPS`` steps (50) with torch, the same number with tf and again with torch, each resuming the previous
checkpoint, and the total number of steps with each framework alone. FOLDER gets the run folders, ``losses.json`` and
``change_framework.png``. The schedule is constant, because the others depend on the last step of a run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

RELAY = ("torch", "tf", "torch")


def train(recipe: str, folder: Path, backend: str, steps: int, overrides: list[str]) -> None:
    arguments = [f"recipe={recipe}", f"backend={backend}", f"run_dir={folder}", "resume=auto", *overrides]
    arguments += ["schedule=constant", f"trainer.max_steps={steps}", "trainer.log_every=1", "trainer.show=0"]
    subprocess.run([sys.executable, "-m", "toolkit.run", *arguments], check=True, stdout=subprocess.DEVNULL)


def losses(folder: Path) -> np.ndarray:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return np.array([row["loss"] for row in rows if row["split"] == "train"])


def drift(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.abs(values - reference) / np.abs(reference)


def plot(curves: dict[str, np.ndarray], steps: int, recipe: str, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    whole = curves["torch alone"]
    number = np.arange(1, len(whole) + 1)
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(9, 6.5), sharex=True, height_ratios=(3, 2))
    upper.plot(number, whole, color="0.75", linewidth=5, label="torch alone")
    upper.plot(number, curves["relay"], color="tab:red", linewidth=1.3, label="torch, tf, torch")
    upper.set_ylabel("training loss")
    upper.legend(frameon=False)
    upper.set_title(f"recipe={recipe}: one run with torch, tf and torch in turn", loc="left", pad=18)
    for name, color in (("relay", "tab:red"), ("tf alone", "tab:blue")):
        apart = np.maximum(drift(curves[name], whole), 1e-17)
        lower.semilogy(number, apart, color=color, linewidth=1.2, label=f"{name} against torch alone")
    lower.set_ylabel("relative difference")
    lower.set_xlabel("optimizer step")
    lower.legend(frameon=False)
    for turn, backend in enumerate(RELAY):
        for axes in (upper, lower):
            axes.axvspan(turn * steps + 0.5, (turn + 1) * steps + 0.5, color="tab:orange", alpha=0.1 * (turn % 2), lw=0)
        upper.text((turn + 0.5) * steps, 1.02, backend, ha="center", va="bottom", transform=upper.get_xaxis_transform())
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main(recipe: str, folder: Path, steps: int, overrides: list[str]) -> None:
    for turn, backend in enumerate(RELAY):
        train(recipe, folder / "relay", backend, (turn + 1) * steps, overrides)
    for backend in ("torch", "tf"):
        train(recipe, folder / backend, backend, len(RELAY) * steps, overrides)
    curves = {"relay": losses(folder / "relay")}
    curves |= {f"{backend} alone": losses(folder / backend) for backend in ("torch", "tf")}
    (folder / "losses.json").write_text(json.dumps({name: list(values) for name, values in curves.items()}))
    plot(curves, steps, recipe, folder / "change_framework.png")
    for name in ("relay", "tf alone"):
        apart = drift(curves[name], curves["torch alone"])
        parts = ", ".join(
            f"turn {t + 1} {apart[t * steps]:.1e} at first, {apart[t * steps : (t + 1) * steps].max():.1e} at most"
            for t in range(len(RELAY))
        )
        print(f"{name} against torch alone, relative: {parts}")


if __name__ == "__main__":
    words = sys.argv[3:]
    count = int(words.pop(0)) if words and words[0].isdecimal() else 50
    main(sys.argv[1], Path(sys.argv[2]), count, words)
