"""``trainer=tpu`` as far as it goes without a TPU: the step under XLA, the rows of replicas, what is refused."""

import json
import time

import pytest

from tests.twins import components
from tests.twins.tolerances import FLOAT64

MODELS = components.specs("models")


def every(kind):
    """All models; those but the first with this kind of input by ``-m long`` alone: compilation takes half a minute."""
    first = components.first_model(kind)
    return pytest.mark.parametrize("model", [pytest.param(m, marks=[pytest.mark.long] * (m != first)) for m in MODELS])


# Of the loss and the gradient's norm over two steps of small models, relative. Float32: some hundred roundings of
# 6e-8. Bfloat16, of 8 bits: XLA keeps float32 between the operations that it fuses, and each leaves 4e-3.
NEAR = {"32": 1e-5, "bf16": 0.05}


@pytest.fixture(scope="module")
def worker(backends):
    """A function that does a job of ``tests.workers.tpu`` with a model, and returns what it found."""

    def worker(job, precision, model):
        return json.loads(backends["tf"].run("tests.workers.tpu", job, precision, model, timeout=500).stdout)

    return worker


@every("image")  # a loss with a loop, that of CTC, is among those with -m long
def test_the_step_under_xla_is_the_step(worker, model):
    """Forward, loss, gradients, statistics, the optimizer's update and the averages, with dropout and augmentation."""
    found = worker("xla", "64", model)
    assert found["steps"] < FLOAT64 and found["held"] < FLOAT64, found


@pytest.mark.long
@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize("model", MODELS)
def test_the_step_under_xla_is_near_in_less_precision(worker, model, precision):
    found = worker("xla", precision, model)
    assert found["steps"] < NEAR[precision], found


@every("image")  # a batch norm across the devices
def test_replicas_that_are_given_their_rows_have_the_trajectory_of_one_device(worker, model):
    """Two logical CPUs in the place of a TPU's cores; one trace for each of two shapes."""
    found = worker("parts", "64", model)
    assert found["steps"] < FLOAT64 and found["held"] < FLOAT64, found
    assert found["traces"] == 2


@pytest.mark.parametrize(
    "name, said",
    [
        (
            None,
            "trainer.strategy: found tpu, expected a TPU: TPU_NAME names none, and this machine has neither ",
        ),
        ("nowhere", "trainer.strategy: found tpu, expected a TPU: none answers as 'nowhere' ("),
    ],
)
def test_where_there_is_no_tpu_one_line_says_so_before_the_data_are_read(backends, name, said, tmp_path, monkeypatch):
    words = ["recipe=asr", "backend=tf", "trainer=tpu", f"run_dir={tmp_path / 'run'}"]
    monkeypatch.delenv("TPU_NAME", raising=False)
    environment = {"TOOLKIT_CACHE": str(tmp_path / "cache")} | ({"TPU_NAME": name} if name else {})
    began = time.monotonic()
    done = backends["tf"].run("toolkit.run", *words, env=environment, code=2)
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith(said), done.stderr
    assert "trainer=mirrored" in done.stderr and "docs/guide/devices.md" in done.stderr
    assert time.monotonic() - began < 60 and not (tmp_path / "cache").exists()
