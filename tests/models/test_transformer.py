"""The Transformer: step by step as in one go, beside PyTorch's own layers, its positions, sizes and errors.

That the twins are equal, with each option, and that padding reaches nothing is tested in ``tests/twins``.
"""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import toolkit
from tests.twins.compare import distance
from toolkit.config.spec import problems
from toolkit.errors import ConfigError
from toolkit.layers import parameters as weights
from toolkit.models.transformer.spec import Transformer

ROOT = Path(toolkit.__file__).parents[1]
SMALL = dict(dim=16, heads=2, feed_forward=24, encoder_layers=2, decoder_layers=2, max_positions=9)
SPECS = {
    "post": Transformer(**SMALL),
    "pre": Transformer(**SMALL, norm="pre", activation="gelu", tie_output=False),
    "shared": Transformer(**SMALL, share_embeddings=True),
}
VOCABULARY = 13
LENGTHS = np.array([7, 1, 4], np.int32)
WIDTH, STEPS = 3, 6

COMMON = """
import sys
import numpy as np
from tests.models.test_transformer import LENGTHS, SMALL, SPECS, VOCABULARY, WIDTH, drawn, sources, walk
from toolkit.models.transformer.spec import Transformer as Spec
out = {}
"""

# One process for each framework: a walk of steps beside the whole forward pass on what each row has by then.
TORCH = f"""{COMMON}
import torch
from toolkit.layers.torch import set_weights
from toolkit.models.transformer.torch import Transformer

def made(spec, dtype=torch.float64):
    model = Transformer(spec, VOCABULARY, VOCABULARY).to(dtype).eval()
    set_weights(model, drawn(spec))
    return model

torch.set_num_threads(1)
torch.set_grad_enabled(False)
source, lengths = torch.from_numpy(sources()), torch.from_numpy(LENGTHS)
wide_source, wide_lengths = (x.repeat_interleave(WIDTH, 0) for x in (source, lengths))
for name, spec in SPECS.items():
    model = made(spec)
    state = model.start(source, lengths, WIDTH)
    for number, (tokens, parents, so_far) in enumerate(walk()):
        before = dict(state)
        logits, state = model.step(state, torch.from_numpy(tokens), torch.from_numpy(parents))
        whole, found = model(wide_source, wide_lengths, torch.from_numpy(so_far))
        out |= {{f"{{name}}/step/{{number}}": logits, f"{{name}}/whole/{{number}}": whole[:, -1]}}
        again, _ = model.step(before, torch.from_numpy(tokens), torch.from_numpy(parents))
        assert torch.equal(again, logits)  # a step leaves the state that it is given as it was
    out |= {{f"{{name}}/source": found["source"][::WIDTH], f"{{name}}/target": found["target"]}}
    with torch.autocast("cpu", torch.bfloat16):
        model = made(spec, torch.float32)
        logits, state = model.step(model.start(source, lengths, 1), *(torch.zeros(3, dtype=torch.int32),) * 2)
        assert logits.dtype == torch.float32
        out[f"{{name}}/bfloat16/step"] = logits
        out[f"{{name}}/bfloat16/whole"] = model(source, lengths, torch.zeros(3, 1, dtype=torch.int32))[0][:, 0]

model = made(SPECS["post"])
nine, ten = torch.ones(1, 9, dtype=torch.int32), torch.ones(1, 10, dtype=torch.int32)
model(nine, torch.tensor([9]), nine)
state, zero = model.start(nine, torch.tensor([9]), 1), torch.zeros(1, dtype=torch.int32)
for _ in range(9):
    _, state = model.step(state, zero, zero)
for wrong in (
    lambda: model(ten, torch.tensor([10]), nine),
    lambda: model(nine, torch.tensor([9]), ten),
    lambda: model.start(ten, torch.tensor([10]), 1),
    lambda: model.step(state, zero, zero),
):
    try:
        wrong()
    except ValueError as error:
        assert str(error) == "the input has 10 tokens, more than model.max_positions (9)", error
    else:
        raise AssertionError("too long an input was taken")
"""

# Beside the layers that PyTorch has, whose keys have a bias and which hold query, key and value in one matrix.
STOCK = """
def copied(stock, own, norms):
    state = {}
    for theirs, ours in (("self_attn", "self_attention"), ("multihead_attn", "cross_attention")):
        if not hasattr(own, ours):
            continue
        attention = getattr(own, ours)
        parts = attention.query, attention.key, attention.value
        state[f"{theirs}.in_proj_weight"] = torch.cat([part.weight for part in parts])
        biases = [attention.query.bias, torch.zeros_like(attention.query.bias), attention.value.bias]
        state[f"{theirs}.in_proj_bias"] = torch.cat(biases)
        state |= {f"{theirs}.out_proj.{k}": v for k, v in attention.out.state_dict().items()}
    for number in (1, 2):
        linear = getattr(own.feed_forward, f"linear{number}")
        state |= {f"linear{number}.{k}": v for k, v in linear.state_dict().items()}
    for number in range(1, norms + 1):
        state |= {f"norm{number}.{k}": v for k, v in getattr(own, f"residual{number}").norm.state_dict().items()}
    stock.load_state_dict(state)
    return stock.double().eval()

for name, spec in SPECS.items():
    model = made(spec)
    previous = torch.from_numpy(list(walk())[-1][2])[::WIDTH]
    _, found = model(source, lengths, previous)
    padding = torch.arange(source.shape[1]) >= lengths[:, None]
    later = torch.ones(previous.shape[1], previous.shape[1], dtype=torch.bool).triu(1)
    sizes = dict(d_model=spec.dim, nhead=spec.heads, dim_feedforward=spec.feed_forward, dropout=0.0, batch_first=True)
    sizes |= dict(activation=spec.activation, norm_first=spec.norm == "pre")
    x = found["source"]
    for own in model.encoder:
        x = copied(torch.nn.TransformerEncoderLayer(**sizes), own, 2)(x, src_key_padding_mask=padding)
    memory = model.encoder_norm(x) if spec.norm == "pre" else x
    x = found["target"]
    for own in model.decoder:
        stock = copied(torch.nn.TransformerDecoderLayer(**sizes), own, 3)
        x = stock(x, memory, tgt_mask=later, memory_key_padding_mask=padding)
    x = model.decoder_norm(x) if spec.norm == "pre" else x
    head = model.head if name == "pre" else model.embedding if name == "shared" else model.target_embedding
    out |= {f"{name}/stock": x @ head.weight.T, f"{name}/own": found["logits"]}
"""

TF = f"""{COMMON}
import keras
import tensorflow as tf
from toolkit.layers.tf import set_weights
from toolkit.models.transformer.tf import Transformer

def made(spec, dtype="float64"):
    keras.config.set_floatx("float32" if dtype == "mixed_bfloat16" else dtype)
    keras.config.set_dtype_policy(dtype)
    model = Transformer(spec, VOCABULARY, VOCABULARY)
    set_weights(model, drawn(spec))
    return model

source, lengths = tf.constant(sources()), tf.constant(LENGTHS)
wide_source, wide_lengths = (tf.repeat(x, WIDTH, 0) for x in (source, lengths))
for name, spec in SPECS.items():
    model = made(spec)
    step = tf.function(model.step, reduce_retracing=True)
    state = model.start(source, lengths, WIDTH)
    for number, (tokens, parents, so_far) in enumerate(walk()):
        logits, state = step(state, tf.constant(tokens), tf.constant(parents))
        whole, found = model(wide_source, wide_lengths, tf.constant(so_far))
        out |= {{f"{{name}}/step/{{number}}": logits, f"{{name}}/whole/{{number}}": whole[:, -1]}}
    out |= {{f"{{name}}/source": found["source"][::WIDTH], f"{{name}}/target": found["target"]}}
    assert step.experimental_get_tracing_count() <= 2  # the empty cache, and any
    model = made(spec, "mixed_bfloat16")
    zero = tf.zeros(3, tf.int32)
    logits, state = model.step(model.start(source, lengths, 1), zero, zero)
    assert logits.dtype == tf.float32 and state["past.0.key"].dtype == tf.bfloat16
    out[f"{{name}}/bfloat16/step"] = logits
    out[f"{{name}}/bfloat16/whole"] = model(source, lengths, zero[:, None])[0][:, 0]

model = made(SPECS["post"])
nine, ten = tf.ones([1, 9], tf.int32), tf.ones([1, 10], tf.int32)
model(nine, tf.constant([9]), nine)
state, zero = model.start(nine, tf.constant([9]), 1), tf.zeros(1, tf.int32)
for _ in range(9):
    _, state = model.step(state, zero, zero)
for wrong in (
    lambda: tf.function(model)(ten, tf.constant([10]), nine),  # also where the shape is known beforehand
    lambda: model(nine, tf.constant([9]), ten),
    lambda: model.start(ten, tf.constant([10]), 1),
    lambda: model.step(state, zero, zero),
):
    try:
        wrong()
    except tf.errors.InvalidArgumentError as error:
        assert "more tokens than model.max_positions" in error.message, error
    else:
        raise AssertionError("too long an input was taken")
"""


def drawn(spec: Transformer) -> dict[str, np.ndarray]:
    """The initial weights, with biases and normalisations that are not zero and one."""
    made = weights.initial(spec.parameters(VOCABULARY, VOCABULARY), 2)
    random = np.random.Generator(np.random.Philox(key=8))
    return {k: v + (0.3 * random.standard_normal(v.shape)).astype(np.float32) for k, v in made.items()}


def sources() -> np.ndarray:
    """``(examples, time)`` tokens; what lies beyond the lengths is no zero."""
    return np.random.Generator(np.random.Philox(key=3)).integers(1, VOCABULARY, (len(LENGTHS), 7)).astype(np.int32)


def walk() -> Any:
    """Tokens, parents and what each row has by then, the boundary first, of some steps of a search."""
    random = np.random.Generator(np.random.Philox(key=5))
    rows = len(LENGTHS) * WIDTH
    so_far = np.zeros((rows, 0), np.int32)
    for step in range(STEPS):
        tokens = random.integers(1, VOCABULARY, rows).astype(np.int32) * (step > 0)
        parents = (np.arange(rows) // WIDTH * WIDTH + random.integers(0, WIDTH, rows)).astype(np.int32)
        so_far = np.concatenate([so_far[parents], tokens[:, None]], 1)
        yield tokens, parents, so_far


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """Backend -> what its worker computed."""
    folder = tmp_path_factory.mktemp("transformer")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    save = "\nnp.savez(sys.argv[1], **{k: v.numpy() for k, v in out.items()})\n"
    workers = {}
    for backend, script in (("torch", TORCH + STOCK), ("tf", TF)):
        command = [sys.executable, "-c", script + save, str(folder / f"{backend}.npz")]
        with open(folder / f"{backend}.log", "w") as log:
            workers[backend] = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    for backend, worker in workers.items():
        assert worker.wait() == 0, (folder / f"{backend}.log").read_text()[-4000:]
    return {backend: dict(np.load(folder / f"{backend}.npz")) for backend in workers}


def near(a: np.ndarray, b: np.ndarray, limit: float = 1e-12) -> bool:
    return a.shape == b.shape and distance("", a, b) <= limit


@pytest.mark.parametrize("backend", ["torch", "tf"])
@pytest.mark.parametrize("name", SPECS)
def test_a_step_gives_what_the_whole_gives(found, backend, name):
    """Whatever rows the hypotheses came from, and beside sources of other lengths."""
    for step in range(STEPS):
        assert near(found[backend][f"{name}/step/{step}"], found[backend][f"{name}/whole/{step}"]), step


@pytest.mark.parametrize("name", SPECS)
def test_steps_are_equal_in_both_frameworks(found, name):
    for step in range(STEPS):
        assert near(found["torch"][f"{name}/step/{step}"], found["tf"][f"{name}/step/{step}"]), step


@pytest.mark.parametrize("backend", ["torch", "tf"])
@pytest.mark.parametrize("name", SPECS)
def test_bfloat16_is_near(found, backend, name):
    """Eight bits of a value: 4e-3 in each of some ten sums."""
    arrays = found[backend]
    assert near(arrays[f"{name}/bfloat16/step"], arrays[f"{name}/whole/0"][::WIDTH], 0.05)
    assert near(arrays[f"{name}/bfloat16/step"], arrays[f"{name}/bfloat16/whole"], 0.05)


@pytest.mark.parametrize("name", SPECS)
def test_beside_the_layers_that_pytorch_has(found, name):
    assert near(found["torch"][f"{name}/own"], found["torch"][f"{name}/stock"])


@pytest.mark.parametrize("backend", ["torch", "tf"])
@pytest.mark.parametrize("name", SPECS)
def test_embeddings_are_scaled_and_know_their_place(found, backend, name):
    """Section 3.5 of the paper, word for word."""
    spec, given = SPECS[name], drawn(SPECS[name])
    shared = name == "shared"
    *_, (_, _, so_far) = walk()
    for kind, tokens in (("source", sources()), ("target", so_far)):
        matrix = given["embedding.weight" if shared else f"{kind}_embedding.weight"].astype(np.float64)
        expected = matrix[tokens] * math.sqrt(spec.dim)
        for place, i in itertools.product(range(tokens.shape[1]), range(spec.dim // 2)):
            angle = place / 10000 ** (2 * i / spec.dim)
            expected[:, place, 2 * i] += np.float32(math.sin(angle))
            expected[:, place, 2 * i + 1] += np.float32(math.cos(angle))
        assert near(found[backend][f"{name}/{kind}"], expected)


def count(spec: Transformer, inputs: int, outputs: int) -> int:
    return sum(math.prod(parameter.shape) for parameter in spec.parameters(inputs, outputs).values())


def test_shared_and_tied_matrices_are_counted_once():
    tied, free = Transformer(), Transformer(tie_output=False)
    assert count(free, 50, 70) - count(tied, 50, 70) == 70 * 128
    assert count(tied, 70, 70) - count(Transformer(share_embeddings=True), 70, 70) == 70 * 128
    untied = Transformer(share_embeddings=True, tie_output=False)
    assert count(untied, 70, 70) - count(Transformer(share_embeddings=True), 70, 70) == 70 * 128


@pytest.mark.parametrize("size, millions", [("base", 65), ("big", 213)])
def test_sizes_are_the_papers(size, millions):
    """Table 3, with the vocabulary of 37 000 tokens of section 5.1 and one matrix for all (section 3.4)."""
    fields = yaml.safe_load((ROOT / f"conf/model/transformer_{size}.yaml").read_text())
    del fields["defaults"]
    spec = Transformer(**fields, share_embeddings=True)
    assert not list(problems(spec))
    assert count(spec, 37000, 37000) == pytest.approx(millions * 1e6, rel=0.035)


def test_the_defaults_are_tiny():
    fields = yaml.safe_load((ROOT / "conf/model/transformer_tiny.yaml").read_text())
    del fields["defaults"]
    assert Transformer(**fields) == Transformer()


def test_one_embedding_needs_one_vocabulary():
    spec = Transformer(share_embeddings=True)
    spec.parameters(50, 50)
    with pytest.raises(ConfigError, match=r"model\.share_embeddings: found 50 tokens .* 70 .*expected one vocabulary"):
        spec.parameters(50, 70)


@pytest.mark.parametrize("fields, wrong", [(dict(dim=15, heads=5), "dim"), (dict(dim=16, heads=3), "dim")])
def test_widths_must_divide(fields, wrong):
    assert [field for field, _ in problems(Transformer(**fields))] == [wrong]
