"""``dataset=common_voice``: Common Voice (Ardila et al. 2020), ``fixie-ai/common_voice_17_0`` on the
Hugging Face hub: read sentences in many languages, CC0.

``dataset.path=FOLDER`` takes a local copy of the repository. Layout: a configuration for each language, Parquet files
``en/train-00000-of-N.parquet`` with client_id, audio, path, sentence, up_votes and others. The columns are those of the
loading script ``datasets/common_voice`` in https://github.com/huggingface/datasets; the names of the files were not
verified. It is tested against a stand-in of the hub's interface; the hub itself is untested here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.normalize import plain
from toolkit.data.problems import Problem
from toolkit.data.sources import hub
from toolkit.data.sources.shards import Row, Shards
from toolkit.datasets.base import HubFields, SpeechDataset, recording

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


@spec
class CommonVoice(SpeechDataset, HubFields):
    """Read sentences of many speakers, MP3, with the official splits."""

    sharded: ClassVar[bool] = True

    path: str | None = option(None, "local copy of the repository; null: fetched from the hub")
    repository: str = option("fixie-ai/common_voice_17_0", "repository on the hub")
    language: str = option("en", "language code, such as de or pt")
    plain: bool = option(True, "lower-case transcripts with only letters, digits, apostrophes and spaces")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        for split in self.kept:
            yield from hub.examples(self, split, hub.rows(*self._part(split), cache, ("path", "sentence")))

    def shards(self, split: str, cache: Path) -> Shards:
        return hub.shards(*self._part(split), cache, ("path", "sentence"))

    def example(self, split: str, row: Row) -> Example:
        sentence = row.fields["sentence"]
        text = plain(sentence.lower()) if self.plain else sentence
        name = Path(row.fields["path"]).stem
        return recording(name, split, text, row.read, row.where, row.file_name, row.stamp)

    def _part(self, split: str) -> tuple[str, str, str, str | None]:
        source, revision = hub.located(self.path, self.repository, self.revision)
        return source, self.language, split, revision
