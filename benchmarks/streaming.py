"""Measure memory and start-up of a run over a stream, from 1,000 to 1,000,000 examples.

    python benchmarks/streaming.py DOMAIN BACKEND FOLDER [EXAMPLES ...]

Writes a few shards of 125 examples into ``FOLDER`` (speech: TFRecord, translation: Parquet, images: WebDataset) and
links to them, then trains a small model over 1,000, 10,000, 100,000 and 1,000,000 examples, ``STEPS`` steps each.
Prints a row of a Markdown table for each: seconds from the start of the process to the first step, examples seen, peak
memory of the process, and the increase over the smallest run for each additional example.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

EACH = 125  # examples of a shard: 1,000 are in as many shards as there are lanes
DIFFERENT = 4
STEPS = {"speech": 40, "translation": 150, "images": 300}
DOMAINS = {
    "speech": ("asr", "audio_shards", "tfrecord", ["model.units=32", "trainer.batch_budget=null"]),
    "translation": (
        "translation",
        "pair_shards",
        "parquet",
        ["dataset.source=en", "dataset.target=de", "tokenizer.vocab_size=20"],
    ),
    "images": ("image_classification", "image_shards", "tar", []),
}


def shards(folder: Path, domain: str, kind: str, examples: int) -> Path:
    """Return a folder with ``examples`` examples for training, and a few for evaluation."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.support import made

    originals = [folder / f"{domain}-{i}.{kind}" for i in range(DIFFERENT)]
    folder.mkdir(parents=True, exist_ok=True)
    for i, original in enumerate(originals):
        if not original.exists():
            made.WRITERS[kind](original, made.records(domain, EACH, i))
    here = folder / f"{domain}-{examples}"
    if not here.exists():
        here.mkdir()
        for seed, split in enumerate(("validation", "test"), DIFFERENT):
            made.WRITERS[kind](here / f"{split}-0.{kind}", made.records(domain, 32, seed))
        for i in range(max(1, examples // EACH)):
            os.link(originals[i % DIFFERENT], here / f"train-{i:05}.{kind}")
    return here


def measured(domain: str, backend: str, data: Path) -> tuple[float, int, float]:
    """Return the seconds to the first step, the examples seen, and the peak memory of the process in bytes."""
    recipe, dataset, _, overrides = DOMAINS[domain]
    words = [f"recipe={recipe}", f"backend={backend}", f"dataset={dataset}", f"dataset.path={data}"]
    words += [
        "dataset.streaming=true",
        f"trainer.max_steps={STEPS[domain]}",
        "trainer.max_epochs=1000000",
        "trainer.validate_every=1000000",
    ]
    words += ["trainer.log_every=1", f"run_dir={data}-{backend}-{os.getpid()}", *overrides]
    began = time.time()
    done = subprocess.run([sys.executable, __file__, "--run", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    first, seen, peak = re.findall(r"^measured (\S+) (\S+) (\S+)$", done.stdout, re.M)[0]
    return float(first) - began, int(seen), float(peak)


def run(words: list[str]) -> None:
    """Run in this process; print the time of the first step, the examples seen and the peak memory."""
    from toolkit import run as command
    from toolkit.runs.folder import RunFolder

    record, first = RunFolder.record, []

    def timed(folder: RunFolder, *row: object) -> None:
        first.append(time.time())
        record(folder, *row)

    RunFolder.record = timed  # type: ignore[method-assign, assignment]
    code = command.run(words)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    folder = Path(next(word for word in words if word.startswith("run_dir=")).partition("=")[2])
    seen = [len(json.loads(line)["ids"]) for line in (folder / "examples.jsonl").read_text().splitlines()]
    print("measured", first[0], sum(seen), peak, flush=True)
    sys.exit(code)


def main(domain: str, backend: str, folder: Path, counts: list[int]) -> None:
    base: tuple[int, float] | None = None
    for examples in counts:
        data = shards(folder, domain, DOMAINS[domain][2], examples)
        begin, seen, peak = measured(domain, backend, data)
        base = base or (examples, peak)
        more = (peak - base[1]) / max(1, examples - base[0])
        shown = f"{more:.0f}" if examples > base[0] else ""
        print(
            f"| {domain} | {backend} | {examples:,} | {begin:.1f} | {seen:,} | {peak / 1e6:.0f} | {shown} |", flush=True
        )


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--run"]:
        run(words[1:])
    elif len(words) > 2:
        main(words[0], words[1], Path(words[2]), [int(n) for n in words[3:]] or [1_000, 10_000, 100_000, 1_000_000])
    else:
        sys.exit(__doc__)
