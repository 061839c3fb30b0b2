"""``dataset=librispeech``: LibriSpeech (Panayotov et al. 2015), ``openslr/librispeech_asr`` on the Hugging Face hub:
960 h of read English, CC BY 4.0.

``dataset.path=FOLDER`` takes a local copy of the repository. Layout: Parquet files with file, audio, text, speaker_id,
chapter_id and id, in folders of each split; configurations clean (train.100, train.360, validation, test), other
(train.500, validation, test) and all (train.clean.100, ...). The columns are those of the loading script
``datasets/librispeech_asr`` in https://github.com/huggingface/datasets, the splits those of the repository's card. It
is tested against a stand-in of the hub's interface; the hub itself is untested here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.data.sources import hub
from toolkit.data.sources.shards import Row, Shards
from toolkit.datasets.base import HubFields, SpeechDataset, recording

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


@spec
class LibriSpeech(SpeechDataset, HubFields):
    """Read English, 16 kHz FLAC, with the official splits."""

    sharded: ClassVar[bool] = True

    path: str | None = option(None, "local copy of the repository; null: fetched from the hub")
    repository: str = option("openslr/librispeech_asr", "repository on the hub")
    subset: Literal["clean", "other", "all"] = option("clean", "configuration of the repository")
    train: str = option("train.100", "split of the hub to train on: train.100, train.360 (clean), train.500 (other)")
    validation: str = option("validation", "split of the hub to validate on")
    test: str = option("test", "split of the hub to test on")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        for split in self.kept:
            yield from hub.examples(self, split, hub.rows(*self._part(split), cache, ("id", "text")))

    def shards(self, split: str, cache: Path) -> Shards:
        return hub.shards(*self._part(split), cache, ("id", "text"))

    def example(self, split: str, row: Row) -> Example:
        name, text = row.fields["id"], row.fields["text"].lower()
        return recording(name, split, text, row.read, row.where, row.file_name, row.stamp)

    def _part(self, split: str) -> tuple[str, str, str, str | None]:
        name = {"train": self.train, "validation": self.validation, "test": self.test}[split]
        source, revision = hub.located(self.path, self.repository, self.revision)
        return source, self.subset, name, revision
