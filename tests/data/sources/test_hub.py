"""Repositories of the Hugging Face hub: what is missing is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import hub
from tests.support.corpora import prepare
from toolkit.datasets import common_voice, librispeech
from toolkit.errors import DataError


def test_an_unreachable_hub_and_missing_columns_are_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    source = hub.recordings(tmp_path / "hub", "en", {"train": [{"path": "a"}]}, {"path": hub.STRING})
    with pytest.raises(DataError, match="found the columns audio, path, expected also sentence"):
        prepare(common_voice.CommonVoice(path=str(source)), tmp_path / "cache")

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        DataError, match=r"openslr/librispeech_asr clean train.100: .*Couldn't reach the Hub.*dataset.path"
    ):
        prepare(librispeech.LibriSpeech(), tmp_path / "cache")
