"""Averaged weights: what they are, who uses them, that they are resumed; whole runs on both backends."""

import itertools
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support import devices, made, speech_runs

BACKENDS = ("torch", "tf")
DECAY = 0.9
OWN = (
    f"trainer.ema_decay={DECAY}",
    "trainer.checkpoint_every=1",
    "trainer.keep=100",
    "schedule=constant",
    "trainer.show=0",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield made.tone_folder(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def run(backends, data):
    """A function that does a run."""

    def run(folder, backend, *overrides):
        words = speech_runs.arguments(data, folder, backend, *OWN, *overrides)
        return backends[backend].run("toolkit.run", *words)

    return run


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """backend -> the folder of a run with averaged weights."""
    folders = {backend: tmp_path_factory.mktemp(f"ema_{backend}") / "run" for backend in BACKENDS}
    for backend, folder in folders.items():
        run(folder, backend)
    return folders


def steps(folder):
    """The weights and their averages after each step."""
    found = sorted((folder / "checkpoints").glob("step-*"))
    return [(load_file(f / "model.safetensors"), load_file(f / "ema.safetensors")) for f in found]


def measured(folder):
    return json.loads((folder / "results.json").read_text())["metrics"]["test"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_step_moves_the_averages_towards_the_weights(whole, backend):
    found = steps(whole[backend])
    assert len(found) >= 8
    for (_, before), (weights, after) in itertools.pairwise(found):
        assert after.keys() == before.keys() <= weights.keys()
        for name in after:
            expected = DECAY * before[name].astype(np.float64) + (1 - DECAY) * weights[name]
            np.testing.assert_allclose(after[name], expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_averages_of_the_backends_begin_alike(whole):
    for (_, ours), (_, theirs) in list(zip(steps(whole["torch"]), steps(whole["tf"]), strict=True))[:3]:
        assert ours.keys() == theirs.keys()
        for name in ours:
            # AdamW's first steps are of size lr whatever the gradient is, so rounding shows where it is near zero
            np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_averages_are_measured(run, whole, backend, tmp_path):
    run(tmp_path / "again", backend, f"evaluate={whole[backend]}")
    run(tmp_path / "raw", backend, f"evaluate={whole[backend]}", "trainer.ema_decay=null")
    assert measured(tmp_path / "again") == measured(whole[backend])
    assert measured(tmp_path / "raw")["loss"] != pytest.approx(measured(whole[backend])["loss"], rel=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_goes_on_has_the_same_averages(run, whole, backend, tmp_path):
    folder = devices.half(whole[backend], tmp_path / "half")
    run(folder, backend, "resume=auto")
    (weights, averages), (others, theirs) = steps(folder)[-1], steps(whole[backend])[-1]
    assert all(np.array_equal(weights[name], others[name]) for name in others)
    assert all(np.array_equal(averages[name], theirs[name]) for name in theirs)


@pytest.mark.long
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_stock_loop_averages_too(run, whole, backend, tmp_path):
    run(tmp_path, backend, "trainer=stock", "trainer.max_epochs=1")
    stock, neutral = steps(tmp_path), steps(whole[backend])
    for (_, ours), (_, theirs) in zip(stock, neutral[: len(stock)], strict=True):
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5)
