"""Classes as tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.errors import DataError
from toolkit.tokenizers.labels.spec import Labels, LabelTokenizer


def test_classes_are_in_numeric_order_then_by_name(tmp_path: Path) -> None:
    Labels().learn(["10", "cat", "9", "2", "Dog", "cat", "a\N{COMBINING ACUTE ACCENT}", "-1"], tmp_path)
    tokenizer = Labels().load(tmp_path)
    assert tokenizer.classes == ["2", "9", "10", "-1", "Dog", "cat", "\N{LATIN SMALL LETTER A WITH ACUTE}"]
    assert tokenizer.size == 7
    assert tokenizer.encode("10") == [2] and tokenizer.encode("3") == []
    assert tokenizer.encode("a\N{COMBINING ACUTE ACCENT}") == [6]
    assert tokenizer.unknown("3") == ["3"] and tokenizer.unknown("cat") == []
    assert tokenizer.decode([5]) == "cat" and tokenizer.decode([0, 1]) == "2, 9" and tokenizer.decode([]) == ""


@pytest.mark.parametrize("junk", ["", "{}", "[1]", '{"classes": 1}', '{"classes": [1]}', '{"classes": ["a", "a"]}'])
def test_classes_missing_or_damaged_are_said(junk: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"classes.json"):
        Labels().load(tmp_path)
    (tmp_path / "classes.json").write_text(junk)
    with pytest.raises(DataError, match=r"classes.json"):
        Labels().load(tmp_path)


TWIN = {
    "torch": """
from toolkit.tokenizers.labels.torch import Labels
ids, lengths = Labels(spec, tokenizer)(names)
assert ids.shape == (len(names), 1)
found = [row[:n].tolist() for row, n in zip(ids, lengths)]
texts = Labels(spec, tokenizer).detokenize(ids, lengths)
""",
    "tf": """
import tensorflow as tf
from toolkit.tokenizers.labels.tf import Labels
twin = Labels(spec, tokenizer)
ids = tf.function(twin, input_signature=[tf.TensorSpec([None], tf.string)])(tf.constant(names))
assert ids.dtype == tf.int32
back = tf.function(twin.detokenize, input_signature=[tf.RaggedTensorSpec([None, None], tf.int32)])
found, texts = ids.to_list(), [t.decode() for t in back(ids).numpy()]
""",
}


@pytest.mark.parametrize("backend", TWIN)
def test_twins_of_the_tokenizer_agree(backend: str, tmp_path: Path) -> None:
    names = [
        "dog",
        "7",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        "cafe\N{COMBINING ACUTE ACCENT}",
        "unseen",
        "",
        "DOG",
    ]
    Labels().learn(["dog", "7", "10", names[2], "犬"], tmp_path)
    code = "import json, sys\nfrom pathlib import Path\nfrom toolkit.tokenizers.labels.spec import Labels as Spec\n"
    code += "spec = Spec()\ntokenizer = spec.load(Path(sys.argv[1]))\nnames = json.loads(sys.argv[2])\n"
    code += TWIN[backend] + "print(json.dumps([found, texts]))"
    env = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", code, str(tmp_path), json.dumps(names)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found, texts = json.loads(done.stdout.splitlines()[-1])
    tokenizer = LabelTokenizer(["7", "10", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "dog", "犬"])
    assert found == [tokenizer.encode(name) for name in names] == [[3], [0], [2], [2], [], [], []]
    assert texts == [tokenizer.decode(ids) for ids in found]
