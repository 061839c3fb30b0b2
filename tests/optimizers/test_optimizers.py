"""The optimizers: torch's arithmetic in TensorFlow, and one state for both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toolkit.config.spec import problems
from toolkit.optimizers.adamw.spec import AdamW
from toolkit.optimizers.sgd.spec import SGD
from toolkit.optimizers.state import check_state
from toolkit.schedules.inverse_square_root.spec import InverseSquareRoot

SPECS = {
    "adamw": "AdamW(weight_decay=0.1)",
    "adamw98": "AdamW(lr=3e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0)",
    "sgd": "SGD(lr=0.01, momentum=0.0, weight_decay=0.01)",
    "momentum": "SGD(lr=0.01, weight_decay=0.01)",
    "nesterov": "SGD(lr=0.01, nesterov=True)",
}
SHAPES = {"a.weight": (7, 5), "a.bias": (7,), "b.weight": (4, 3, 2), "norm.weight": (11,)}
STEPS = 200
CLIP = 0.5

# One process for each framework. Gradients are given: only the optimizers are compared.
TORCH = """
import sys, numpy as np, torch
torch.set_num_threads(1)
from toolkit.config.build import build
from toolkit.optimizers.adamw.spec import AdamW
from toolkit.optimizers.sgd.spec import SGD
from toolkit.optimizers import torch as optimizers
data, out = dict(np.load(sys.argv[1])), {}

class Model(torch.nn.Module):
    def __init__(self, kind, prefix):
        super().__init__()
        for name, value in part(prefix).items():
            owner, leaf = name.split(".")
            if not hasattr(self, owner):
                setattr(self, owner, torch.nn.Module())
            setattr(getattr(self, owner), leaf, torch.nn.Parameter(torch.tensor(value).to(kind)))

def walk(model, optimizer, lrs, kind, clip, first, last):
    for step in range(first, last):
        for group in optimizer.param_groups:
            group["lr"] = float(lrs[step])
        for name, parameter in model.named_parameters():
            parameter.grad = torch.tensor(data[f"gradient/{name}"][step]).to(kind)
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}

def run(job, source, label, spec, kind, clip, first, last):
    case = f"{label}/{str(kind).split('.')[1]}/{clip}"
    prefix = f"{source}/{case}/weights/" if source else "weights/"
    model = Model(kind, prefix)
    lrs = data[f"lr/{label}"]
    optimizer = build(eval(spec), "torch", model.named_parameters())
    if source:
        optimizers.set_state(optimizer, model, part(f"{source}/{case}/state/"))
    leave(f"{job}/{case}/given", optimizers.get_state(optimizer, model))
    leave(f"{job}/{case}/weights", walk(model, optimizer, lrs, kind, clip, first, last))
    leave(f"{job}/{case}/state", optimizers.get_state(optimizer, model))
    if job == "whole":  # the stock optimizer, in its plain loop
        model, made = Model(kind, prefix), eval(spec)
        plain = [{"params": [p], "weight_decay": made.weight_decay * (p.ndim > 1)} for p in model.parameters()]
        if isinstance(made, AdamW):
            stock = torch.optim.AdamW(plain, lr=made.lr, betas=made.betas, eps=made.eps, foreach=False)
        else:
            stock = torch.optim.SGD(plain, lr=made.lr, momentum=made.momentum, nesterov=made.nesterov, foreach=False)
        leave(f"{job}/{case}/stock", walk(model, stock, lrs, kind, clip, first, last))

go_through(run, (torch.float32, torch.float64))
np.savez(sys.argv[2], **out)
"""

TF = """
import sys, keras, numpy as np, tensorflow as tf
from toolkit.config.build import build
from toolkit.layers.tf import Slot
from toolkit.optimizers.adamw.spec import AdamW
from toolkit.optimizers.sgd.spec import SGD
from toolkit.optimizers import tf as optimizers
data, out = dict(np.load(sys.argv[1])), {}
names = [k.removeprefix("gradient/") for k in data if k.startswith("gradient/")]
turn = lambda array: array.T  # every layout differs from torch's

def run(job, source, label, spec, kind, clip, first, last):
    keras.config.set_floatx(kind)
    case = f"{label}/{kind}/{clip}"
    prefix = f"{source}/{case}/weights/" if source else "weights/"
    slots = [Slot(n, keras.Variable(turn(data[prefix + n]).astype(kind)), turn, turn) for n in names]
    # a variable that is not trained has no state, and the order of the gradients is the caller's
    slots.insert(1, Slot("norm.running_mean", keras.Variable(np.zeros(3, kind), trainable=False), turn, turn))
    optimizer = build(eval(spec), "tf", slots)
    variables = [s.variable for s in slots if s.variable.trainable][::-1]
    if source:
        optimizers.set_state(optimizer, slots, part(f"{source}/{case}/state/"))
    leave(f"{job}/{case}/given", optimizers.get_state(optimizer, slots))

    @tf.function
    def step(gradients):
        gradients, norm = optimizers.clip(gradients, clip or None)
        optimizer.apply(gradients, variables)
        return norm

    for i in range(first, last):
        optimizer.learning_rate.assign(data[f"lr/{label}"][i])
        step([tf.constant(turn(data[f"gradient/{n}"][i]).astype(kind)) for n in names[::-1]])
    assert step.experimental_get_tracing_count() == 1
    trained = [s for s in slots if s.variable.trainable]
    leave(f"{job}/{case}/weights", {s.name: np.ascontiguousarray(turn(s.variable.numpy())) for s in trained})
    leave(f"{job}/{case}/state", optimizers.get_state(optimizer, slots))

go_through(run, ("float32", "float64"))
np.savez(sys.argv[2], **out)
"""


SHARED = """
def part(prefix):
    return {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}

def leave(prefix, values):
    out.update({f"{prefix}/{key}": value for key, value in values.items()})

def go_through(run, kinds):
    sources = sorted({key.split("/")[0] for key in data if "/half/" in key})
    jobs = [(f"{source} on", f"{source}/half", STEPS // 2, STEPS) for source in sources]
    for job, source, first, last in jobs or [("whole", "", 0, STEPS), ("half", "", 0, STEPS // 2)]:
        for label, spec in SPECS.items():
            for kind in kinds:
                for clip in (0.0, CLIP):
                    run(job, source, label, spec, kind, clip, first, last)
"""


def run_alone(code: str, *args: Path) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    code = f"SPECS, CLIP, STEPS = {SPECS!r}, {CLIP!r}, {STEPS}\n{SHARED}{code}"
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """Weights and states by "framework job": each framework over all steps ("whole"), over the first half ("half"), and
    over the second half from what each left half-way ("tf torch on": TensorFlow goes on from torch's)."""
    folder = tmp_path_factory.mktemp("optimizers")
    rng = np.random.Generator(np.random.Philox(key=1))
    given = {}
    for name, shape in SHAPES.items():
        given[f"weights/{name}"] = (rng.standard_normal(shape) * 0.3).astype(np.float32)
        size = 10.0 ** rng.uniform(-8, 0, shape)  # gradients over eight decades, which shows epsilon
        given[f"gradient/{name}"] = (rng.standard_normal((STEPS, *shape)) * size).astype(np.float32)
    given["gradient/norm.weight"] = np.abs(given["gradient/norm.weight"])  # so that small biases of steps add up
    for label, text in SPECS.items():
        factors = [InverseSquareRoot(20).factor(i, STEPS) for i in range(STEPS)]
        given[f"lr/{label}"] = np.array([eval(text).lr * f for f in factors])
    found: dict[str, dict[str, np.ndarray]] = {}
    halves: dict[str, np.ndarray] = {}
    for _ in range(2):  # from the start; then from the halves that both left
        left = {}
        for name, code in (("torch", TORCH), ("tf", TF)):
            np.savez(folder / "in.npz", **given, **halves)
            run_alone(code, folder / "in.npz", folder / "out.npz")
            for key, value in np.load(folder / "out.npz").items():
                job, rest = key.split("/", 1)
                found.setdefault(f"{name} {job}", {})[rest] = value
                left[f"{name}/{key}"] = value
        halves = {key: value for key, value in left.items() if key.split("/")[1] == "half"}
    return found


def kinds(found: dict[str, np.ndarray], what: str, kind: str) -> list[str]:
    keys = [k for k in found if f"/{kind}/" in k and f"/{what}/" in k]
    assert len(keys) >= len(SPECS) * 2 * len(SHAPES) or what != "weights"
    return keys


# Largest difference of a weight after 200 steps, in units of the larger of 1 and the weight: for float64 that of equal
# semantics, for float32 the parity ledger's figures. A NaN is no agreement.
LIMITS = {("float64", "adamw"): 1e-8, ("float64", "sgd"): 1e-8, ("float32", "adamw"): 2.4e-7, ("float32", "sgd"): 5e-7}


def hold(found: np.ndarray, expected: np.ndarray, key: str) -> None:
    label, kind, *_ = key.split("/")
    limit = LIMITS[kind, "adamw" if label.startswith("adamw") else "sgd"]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=limit, atol=limit, err_msg=key)


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_twins_agree_after_200_steps(runs, kind: str) -> None:
    for key in kinds(runs["torch whole"], "weights", kind):
        hold(runs["tf whole"][key], runs["torch whole"][key], key)


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_torch_twin_is_the_stock_optimizer(runs, kind: str) -> None:
    for key in kinds(runs["torch whole"], "stock", kind):
        expected, found = runs["torch whole"][key], runs["torch whole"][key.replace("/stock/", "/weights/")]
        hold(found, expected, key)


def true_moment(arrays, key: str):
    scale = arrays[f"{key.rpartition('/')[0]}/exp_avg_sq_scale"] if "/exp_avg_sq" in key else 1.0
    return arrays[key] / scale


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_moments_agree(runs, kind: str) -> None:
    """Divided by the factor that the state gives for them."""
    for key in kinds(runs["torch whole"], "state", kind):
        expected, found = true_moment(runs["torch whole"], key), true_moment(runs["tf whole"], key)
        assert found.shape == expected.shape
        # gradients reach 3, and a buffer ten times that: what cancels leaves the rounding of what was larger
        limit = 1e-8 if kind == "float64" else 2e-6
        atol = 0 if "/exp_avg_sq." in key else limit  # a sum of squares cancels nothing
        np.testing.assert_allclose(found, expected, rtol=limit, atol=atol, err_msg=key)


@pytest.mark.parametrize("name", ["tf torch on", "torch tf on", "tf tf on", "torch torch on"])
def test_state_passes_bit_for_bit(runs, name: str) -> None:
    """But for second moments in float32, whose factor is another on the other backend: those within a rounding."""
    here, there = name.split()[:2]
    source = runs[f"{there} half"]
    keys = [k for k in source if "/state/" in k]
    assert len(keys) == 4 * (2 * (2 * 4 + 2) + (0 + 1) + 2 * (4 + 1))
    for key in keys:
        given = key.replace("/state/", "/given/")
        found = runs[name][given]
        assert found.dtype == source[key].dtype
        if here != there and "/float32/" in key and "/exp_avg_sq" in key:
            np.testing.assert_allclose(true_moment(runs[name], given), true_moment(source, key), rtol=3e-7, err_msg=key)
        else:
            assert np.array_equal(found, source[key]), key
    assert runs[name]["sgd/float32/0.0/given/step"].tolist() == [STEPS // 2]


@pytest.mark.parametrize("name", ["torch torch on", "tf tf on"])
def test_resuming_changes_nothing(runs, name: str) -> None:
    whole = runs[f"{name.split()[0]} whole"]
    for key in [k for k in whole if "/weights/" in k or "/state/" in k]:
        assert np.array_equal(runs[name][key], whole[key]), key


@pytest.mark.parametrize("kind", ["float64", "float32"])
@pytest.mark.parametrize("name", ["tf torch on", "torch tf on"])
def test_going_on_in_the_other_framework(runs, name: str, kind: str) -> None:
    for key in kinds(runs["torch whole"], "weights", kind):
        hold(runs[name][key], runs["torch whole"][key], key)


def test_state_before_the_first_step_is_zero(runs) -> None:
    for name in ("torch whole", "tf whole"):
        given = {k: v for k, v in runs[name].items() if "/given/" in k and not k.endswith("_scale")}
        assert given and not any(v.any() for v in given.values())


def test_only_matrices_and_kernels_decay(runs) -> None:
    """Without a gradient AdamW only decays, and what does not decay stays."""
    code = """
import numpy as np, tensorflow as tf, keras
from toolkit.layers.tf import Slot
from toolkit.config.build import build
from toolkit.optimizers.adamw.spec import AdamW
same = lambda a: a
slots = [Slot(n, keras.Variable(np.ones(s, "float32")), same, same) for n, s in (("w", (2, 2)), ("b", (2,)))]
optimizer = build(AdamW(lr=0.5, weight_decay=0.5), "tf", slots)
variables = [s.variable for s in slots]
optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
assert (variables[0].numpy() == 0.75).all() and (variables[1].numpy() == 1).all()
"""
    run_alone(code)


def test_keras_extras() -> None:
    """Two replicas sum their gradients; repeated embedding rows are summed before they are squared; fit takes it."""
    code = """
import numpy as np, tensorflow as tf, keras
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from toolkit.layers.tf import Slot
from toolkit.config.build import build
from toolkit.optimizers.adamw.spec import AdamW
from toolkit.optimizers.sgd.spec import SGD
same = lambda a: a
start, gradient = np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3), np.linspace(-2, 3, 12, dtype="float32")
gradient = gradient.reshape(4, 3)

def made(spec, name="w"):
    slots = [Slot(name, keras.Variable(start), same, same)]
    return build(spec, "tf", slots), slots[0].variable

for spec in (AdamW(), SGD(nesterov=True, weight_decay=0.1), SGD(momentum=0.0)):
    optimizer, plain = made(spec)
    for _ in range(3):
        optimizer.apply([tf.constant(gradient)], [plain])

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        optimizer, mirrored = made(spec)
    @tf.function
    def step():
        def replica():
            share = 0.25 + 0.5 * tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            optimizer.apply([tf.constant(gradient) * share], [mirrored])
        strategy.run(replica)
    for _ in range(3):
        step()
    for replica in strategy.experimental_local_results(mirrored.value):
        np.testing.assert_allclose(replica.numpy(), plain.numpy(), rtol=1e-6)
    assert int(optimizer.iterations.numpy()) == 3

    optimizer, sparse = made(spec)
    rows = [0, 1, 1, 2, 3, 1]
    parts = np.stack([gradient[r] * (1 / 3 if r == 1 else 1) for r in rows])
    for _ in range(3):
        optimizer.apply([tf.IndexedSlices(tf.constant(parts), tf.constant(rows), tf.constant([4, 3]))], [sparse])
    np.testing.assert_allclose(sparse.numpy(), plain.numpy(), rtol=1e-6)

model = keras.Sequential([keras.layers.Input([3]), keras.layers.Dense(2)])
slots = [Slot(v.name, v, same, same) for v in model.trainable_variables]
model.compile(optimizer=build(AdamW(), "tf", slots), loss="mse")
before = [v.numpy() for v in model.trainable_variables]
model.fit(np.ones([4, 3], "float32"), np.ones([4, 2], "float32"), verbose=0)
assert all((v.numpy() != b).any() for v, b in zip(model.trainable_variables, before))
"""
    run_alone(code)


def test_specs_state_their_limits() -> None:
    assert not list(problems(AdamW())) and not list(problems(SGD()))
    assert [field for field, _ in problems(SGD(momentum=0.0, nesterov=True))] == ["nesterov"]
    assert [field for field, _ in problems(AdamW(lr=0.0, betas=(0.9, 1.0)))] == ["lr", "betas"]


def test_state_that_does_not_fit_is_named() -> None:
    shapes = {"a": (2,), "b": (3, 1)}
    good = {f"{m}.{n}": np.zeros(s) for m in AdamW.moments for n, s in shapes.items()}
    good |= {"step": np.zeros(1, np.int64), "exp_avg_sq_scale": np.ones(1)}
    check_state(good, shapes, AdamW.moments)
    bad = {k: v for k, v in good.items() if k != "exp_avg.a"} | {"exp_avg_sq.b": np.zeros(3), "exp_avg.c": np.zeros(1)}
    with pytest.raises(ValueError) as caught:
        check_state(bad, shapes, AdamW.moments)
    message = str(caught.value)
    for part in ("lacks exp_avg.a", "has exp_avg.c", "exp_avg_sq.b: found shape (3,), expected (3, 1)"):
        assert part in message
