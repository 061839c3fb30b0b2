"""The tokenizers: what they learn, and that their twins give the ids of the shared one."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import DataError
from toolkit.tokenizers.characters.spec import Characters, CharacterTokenizer
from toolkit.tokenizers.sentencepiece.spec import SentencePiece

# Lines that tokenizers have stumbled over: accents composed and not, spaces of all kinds, scripts without spaces or
# from right to left, emoji joined and not, what a normalisation other than NFC would change, the tokens' own names.
ODD = [
    "",
    " ",
    "plain words",
    "  two  spaces  ",
    "café façade naïve Ångström",
    "cafe\u0301 fac\u0327ade nai\u0308ve A\u030angstro\u0308m",
    "x\u0323\u0307 y\u0307\u0323",
    "tab\there, no-break\u00a0space, wide\u3000space, thin\u2009space",
    "東京都は日本の首都です。",
    "서울은 한국의 수도이다",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "שלום עולם مرحبا بالعالم",
    "नमस्ते दुनिया สวัสดีชาวโลก",
    "😀 👩‍👩‍👧‍👦 🇩🇪 ☕️ 🧑🏽‍🚀",
    "ﬁne ½ ² Ω Å \uff21\uff22\uff23 ﾃｽﾄ ß ẞ İ \u0131 \u017f",
    "<blank> <unk> <s> </s> [MASK] ▁ ⁇",
    "-----",
    "000000000",
    "aaaa bbbb!!!! ????",
    "zero\u200bwidth\u200djoiner\ufeffmark",
    "\U0001d49c\U00010348\U0002070e",
    "never seen: ☃ ʘ ꙮ",
]


def corpus() -> list[str]:
    """Made sentences with a natural spread of words, then runs, which is where the unigram model's ties lie."""
    rng = np.random.Generator(np.random.Philox(key=3))
    parts = ["ka", "lo", "mi", "ne", "ra", "su", "té", "vo", "ing", "er", "st", "ñu", "日", "한", "ж", "-", "0", "!"]
    words = ["".join(rng.choice(parts, rng.integers(1, 5))) for _ in range(400)]
    rank = 1 / np.arange(1, 401)
    lines = [" ".join(rng.choice(words, rng.integers(1, 12), p=rank / rank.sum())) for _ in range(1500)]
    runs = [c * int(n) for c in "-0!" for n in rng.integers(2, 40, 100)]
    return lines + runs


SPECS = {
    "characters": Characters(),
    "bpe": SentencePiece("bpe", 200),
    "unigram": SentencePiece("unigram", 200),
}

# Of the 1822 lines, those that tensorflow-text (2.21) splits otherwise than sentencepiece (0.2).
EXCEPTIONS = {"characters": 0, "bpe": 0, "unigram": 7}

TORCH = """
import sys, json, torch
from pathlib import Path
from toolkit.tokenizers.{module}.torch import {name}
from toolkit.tokenizers.{module}.spec import {name} as Spec
lines = json.loads(Path(sys.argv[1]).read_text())
twin = {name}(Spec(), Spec().load(Path(sys.argv[2])))
ids, lengths = twin(lines)
assert ids.dtype == torch.int64 and ids.shape == (len(lines), int(lengths.max()))
found = dict(ids=[row[:n].tolist() for row, n in zip(ids, lengths)], texts=twin.detokenize(ids, lengths))
assert twin([""])[0].shape == (1, 0)
Path(sys.argv[3]).write_text(json.dumps(found))
"""

TF = """
import sys, json, tensorflow as tf
from pathlib import Path
from toolkit.tokenizers.{module}.tf import {name}
from toolkit.tokenizers.{module}.spec import {name} as Spec
lines = json.loads(Path(sys.argv[1]).read_text())
twin = {name}(Spec(), Spec().load(Path(sys.argv[2])))
back = tf.function(twin.detokenize, input_signature=[tf.RaggedTensorSpec([None, None], tf.int32)])
there = tf.function(twin, input_signature=[tf.TensorSpec([None], tf.string)])
ids = there(tf.constant(lines))
blanks = tf.concat([tf.zeros([len(lines), 1], tf.int32), ids], 1)
found = dict(ids=ids.to_list(), texts=[t.decode() for t in back(blanks).numpy()])
Path(sys.argv[3]).write_text(json.dumps(found))
"""


@pytest.fixture(scope="module", params=SPECS)
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A tokenizer that knows the corpus and most of the odd lines."""
    folder = tmp_path_factory.mktemp(request.param)
    spec = SPECS[request.param]
    spec.learn(corpus() + (ODD[:-1] if request.param == "characters" else ODD[2:7]), folder)
    return request.param, spec, folder


def run_twin(code: str, learned, lines: list[str], tmp_path: Path) -> dict:
    import json

    _, spec, folder = learned
    module = type(spec).__module__.split(".")[-2]
    (tmp_path / "in.json").write_text(json.dumps(lines))
    command = [sys.executable, "-c", code.format(module=module, name=type(spec).__name__)]
    command += [str(tmp_path / "in.json"), str(folder), str(tmp_path / "out.json")]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((tmp_path / "out.json").read_text())


def test_torch_twin_gives_the_shared_ids_and_texts(learned, tmp_path: Path) -> None:
    tokenizer = learned[1].load(learned[2])
    found = run_twin(TORCH, learned, ODD, tmp_path)
    assert found["ids"] == [tokenizer.encode(line) for line in ODD]
    assert found["texts"] == [tokenizer.decode(ids) for ids in found["ids"]]


def test_tf_twin_gives_the_shared_ids_and_texts(learned, tmp_path: Path) -> None:
    name, spec, folder = learned
    tokenizer = spec.load(folder)
    lines = ODD + corpus()
    found = run_twin(TF, learned, lines, tmp_path)
    differ = [line for line, ids in zip(lines, found["ids"], strict=True) if ids != tokenizer.encode(line)]
    assert len(lines) == 1822
    assert len(differ) == EXCEPTIONS[name], differ
    assert all(len(set(line)) == 1 for line in differ)  # runs of one character
    assert found["texts"] == [tokenizer.decode(ids) for ids in found["ids"]]


def test_text_survives(learned) -> None:
    name, spec, folder = learned
    tokenizer = spec.load(folder)
    for line in corpus() + ODD:
        if not tokenizer.unknown(line) and "▁" not in line:
            expected = unicodedata.normalize("NFC", line)
            if name != "characters":
                expected = " ".join(part for part in expected.split(" ") if part)
            assert tokenizer.decode(tokenizer.encode(line)) == expected


def test_blank_is_no_text(learned) -> None:
    tokenizer = learned[1].load(learned[2])
    assert not any(0 in tokenizer.encode(line) for line in ODD)
    ids = tokenizer.encode("plain words")
    assert tokenizer.decode([0, 0, *ids[:3], 0, *ids[3:], 0]) == tokenizer.decode(ids) == "plain words"
    assert tokenizer.decode([]) == tokenizer.decode([0]) == ""
    assert all(0 < i < tokenizer.size for line in ODD for i in tokenizer.encode(line))


def test_unknown_characters_are_named(learned) -> None:
    tokenizer = learned[1].load(learned[2])
    assert tokenizer.unknown("plain words") == []
    assert tokenizer.unknown("a☃i ꙮ☃") == ["☃", "ꙮ"]
    assert tokenizer.unknown("cafe\u0301") == []


def test_learning_again_gives_the_same_file(learned, tmp_path: Path) -> None:
    name, spec, folder = learned
    spec.learn(corpus() + (ODD[:-1] if name == "characters" else ODD[2:7]), tmp_path)
    files = sorted(p.name for p in folder.iterdir())
    assert len(files) == 1 and files == sorted(p.name for p in tmp_path.iterdir())
    assert (folder / files[0]).read_bytes() == (tmp_path / files[0]).read_bytes()


def test_characters_are_sorted_whatever_the_order_of_the_texts(tmp_path: Path) -> None:
    Characters().learn(["bca", "b e\u0301"], tmp_path)
    tokenizer = Characters().load(tmp_path)
    assert tokenizer.alphabet == [" ", "a", "b", "c", "é"]
    assert tokenizer.size == 6
    assert tokenizer.encode("a☃é") == [2, 5]


def test_nothing_learned_or_damaged_is_said(tmp_path: Path) -> None:
    for spec, file, junk in (
        (Characters(), "alphabet.json", ["", "{}", "[1]", '{"alphabet": ["ab"]}', '{"alphabet": ["a", "a"]}']),
        (SentencePiece(), "sentencepiece.model", ["", "junk"]),
    ):
        with pytest.raises(DataError, match=file):
            spec.load(tmp_path)
        for text in junk:
            (tmp_path / file).write_text(text)
            with pytest.raises(DataError, match=file):
                spec.load(tmp_path)


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_vocabulary_that_the_data_does_not_bear_is_refused(algorithm, size: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"tokenizer.vocab_size: found {size}; .*(smaller than|value <= \d+)"):
        SentencePiece(algorithm, size).learn(corpus(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_sentencepiece_has_the_size_asked_for(tmp_path: Path) -> None:
    SentencePiece("unigram", 123).learn(corpus(), tmp_path)
    assert SentencePiece().load(tmp_path).size == 123


def test_alphabet_of_nothing() -> None:
    tokenizer = CharacterTokenizer([])
    assert tokenizer.size == 1 and tokenizer.encode("abc") == [] and tokenizer.unknown("aa") == ["a"]
