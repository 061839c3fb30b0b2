"""The command line of short runs of speech recognition."""

from tests.support import tiny

SHORT = [
    "trainer.batch_budget=8",
    "trainer.max_epochs=4",
    "trainer.validate_every=2",
    "trainer.log_every=1",
    "trainer.show=2",
    "schedule.warmup_steps=4",
    "optimizer.lr=0.01",
    "trainer.checkpoint_every=100",
]


def arguments(data, folder, backend, *overrides, model="bilstm_ctc"):
    """Return the arguments of a run on the tones in ``data``."""
    fixed = ["recipe=asr", f"backend={backend}", "dataset=audio_folder", f"dataset.path={data}", f"run_dir={folder}"]
    small = tiny.components(*fixed, f"model={model}")
    return [*fixed, f"model={model}", *small, *SHORT, *overrides]
