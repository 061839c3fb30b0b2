"""Short runs of speech recognition from the command line, in processes of their own."""

import subprocess
import sys

from tests.support import tiny

SHORT = [
    "model.layers=1",
    "trainer.batch_budget=8",
    "trainer.max_epochs=4",
    "trainer.validate_every=2",
    "trainer.log_every=1",
    "trainer.show=2",
    "schedule.warmup_steps=4",
    "trainer.checkpoint_every=100",
]


def command(data, folder, backend, *overrides, model="conformer_ctc"):
    """Return the command line of a run on the tones in ``data``."""
    fixed = ["recipe=asr", f"backend={backend}", "dataset=audio_folder", f"dataset.path={data}", f"run_dir={folder}"]
    small = tiny.components(*fixed, f"model={model}")
    return [sys.executable, "-m", "toolkit.run", *fixed, f"model={model}", *small, *SHORT, *overrides]


def run(data, folder, backend, *overrides, code=0, model="conformer_ctc"):
    """Do a run that must end with this exit code."""
    done = subprocess.run(
        command(data, folder, backend, *overrides, model=model), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done
