"""Short runs on one device and on several, in processes of their own, and how they compare."""

import contextlib
import functools
import json
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support import made, tiny

BACKENDS = ("torch", "tf")
STEPS = 4
TOLERANCE = 1e-8  # relative, in float64: what differs is the order of sums over a batch
# 24 examples, two batches a step: where 23 are taken at most, one batch has a single row, and one device none of it
ODD = ["trainer.batch_examples=23"]
# a checkpoint after two of four steps falls into the middle of an epoch
HALVES = ["trainer.batch_examples=7", "trainer.checkpoint_every=2"]
RECIPES = {
    # batch norm over sequences, dropout of all shapes, SpecAugment
    "speech": ("asr", ["model=conformer_ctc", "task.decoder=greedy", *ODD]),
    # a loss that is a mean over tokens
    "translation": ("translation", ["task.decoder=beam", "model.attention_dropout=0.1", *HALVES]),
    # batch norm over images, crops and flips
    "images": ("image_classification", ["features.crop=pad", *ODD, "trainer.checkpoint_every=2", "schedule=constant"]),
}
# what shares the weights too has to know from where a model's parts are called: the other models, and other ways
OTHERS = {
    "speech-bilstm": ("asr", ["model=bilstm_ctc", "task.decoder=beam", *ODD]),
    "translation-post": ("translation", ["model.norm=post", "model.tie_output=false", "task.decoder=greedy", *HALVES]),
    "translation-lstm": ("translation", ["model=lstm_attention", "task.decoder=beam", *HALVES]),
    "translation-feeding": ("translation", ["model=lstm_attention", "model.input_feeding=true", *HALVES]),
    "images-cnn": ("image_classification", ["model=cnn", "optimizer=sgd", *ODD]),
    "images-resnet": ("image_classification", ["model=resnet", *ODD]),
    "images-vit": ("image_classification", ["model=vit", *ODD]),
}


@contextlib.contextmanager
def own_cache(tmp_path_factory):
    """Give the runs of a test module a cache, and yield an empty folder for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory.mktemp("devices")


def command(folder, domain, backend, run, *overrides):
    recipe, own = (RECIPES | OTHERS)[domain]
    domain = domain.partition("-")[0]
    option, make = made.FOLDERS[domain]
    data = folder / domain
    if not data.exists():
        make(data)
    fixed = [f"recipe={recipe}", f"backend={backend}", f"dataset={option}", f"dataset.path={data}"]
    models = [word for word in own if word.startswith("model=")]
    length = [f"trainer.max_steps={STEPS}", "trainer.max_epochs=100000", "trainer.validate_every=99999"]
    small = [*tiny.components(*fixed, *models), *tiny.SHORT, *length, "trainer.accumulate=2", "trainer.precision=64"]
    always = ["trainer.keep=1000", "trainer.ema_decay=0.9"]
    return [sys.executable, "-m", "toolkit.run", *fixed, *small, *own, *always, f"run_dir={run}", *overrides]


def train(backends, folder, domain, backend, run, *overrides, code=0):
    words = command(folder, domain, backend, run, *overrides)[3:]
    return backends[backend].run("tests.workers.forked", *words, code=code)


def logged(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return np.array([(row["loss"], row["grad_norm"], row["lr"]) for row in found if row["split"] == "train"])


def last(run):
    checkpoint = run / "checkpoints" / json.loads((run / "checkpoints" / "index.json").read_text())["last"]
    averages = load_file(checkpoint / "ema.safetensors")
    weights = load_file(checkpoint / "model.safetensors") | load_file(checkpoint / "optimizer.safetensors")
    return weights | {f"average of {name}": array for name, array in averages.items()}


def assert_same(one, other, since=0):
    """Two runs had the same steps, and hold the same weights, moments and averages, which measure the same."""
    ours, theirs = logged(one), logged(other)
    assert len(ours) == len(theirs) == STEPS
    np.testing.assert_allclose(theirs[since:], ours[since:], rtol=TOLERANCE)
    ours, theirs = last(one), last(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        # gradients that cancel out, as a bias before a batch norm has, are rounding alone
        np.testing.assert_allclose(theirs[name], array, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    ours, theirs = (json.loads((run / "results.json").read_text())["metrics"] for run in (one, other))
    assert ours.keys() == theirs.keys() == {"validation", "test"}
    for split, values in ours.items():
        assert theirs[split] == pytest.approx(values, rel=TOLERANCE)


def half(run, copy):
    """A copy of a run that was killed after two steps."""
    shutil.copytree(run, copy)
    for checkpoint in (copy / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > 2:
            shutil.rmtree(checkpoint)
    return copy


def begun(process, run):
    """The processes of a run, once it has left a checkpoint."""
    index, until = run / "checkpoints" / "index.json", time.monotonic() + 100
    while not index.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) == 2, f"found {len(children)} processes, exit code {process.poll()}"
    return children


def joined(ranks):
    """The engines of several processes as the loop needs them; each is a thread here."""
    sent, barrier = [np.zeros(0)] * ranks, threading.Barrier(ranks)

    def total(rank, values):
        sent[rank] = np.asarray(values, np.float64)
        barrier.wait(20)
        summed = np.sum(sent, axis=0)
        barrier.wait(20)
        return summed

    return [SimpleNamespace(rank=rank, ranks=ranks, total=functools.partial(total, rank)) for rank in range(ranks)]
