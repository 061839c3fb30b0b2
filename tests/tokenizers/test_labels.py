"""Classes as tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toolkit.tokenizers.labels.spec import Labels, LabelTokenizer

from tests.support.backend import Backends
from toolkit.errors import DataError


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


def test_twins_of_the_tokenizer_agree(backends: Backends, tmp_path: Path) -> None:
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
    cases = {"labels": (Labels.__module__, "Labels", {}, str(tmp_path))}
    found = backends.compute("tokenizers", "labels", {"cases": np.array(json.dumps([names, cases]))})
    tokenizer = LabelTokenizer(["7", "10", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "dog", "犬"])
    for answers in found.values():
        told = json.loads(str(answers["found"]))
        assert told["ids"] == [tokenizer.encode(name) for name in names] == [[3], [0], [2], [2], [], [], []]
        assert told["texts"] == [tokenizer.decode(ids) for ids in told["ids"]]
