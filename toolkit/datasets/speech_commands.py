"""``dataset=speech_commands``: Speech Commands (Warden 2018), ``google/speech_commands`` on the Hugging Face hub:
35 English words, CC BY 4.0.

``dataset.path=FOLDER`` takes a local copy of the repository. The repository holds a loading script, which is not run;
the hub's export of it to Parquet is read, a branch with ``v0.02/train/0000.parquet``. Its columns (file, audio, label,
is_unknown, speaker_id, utterance_id) and classes, background noise as ``_silence_``, were verified with the script
``datasets/speech_commands`` in https://github.com/huggingface/datasets. It is tested against a stand-in of the hub's
interface; the hub itself is untested here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.data.sources import hub
from toolkit.data.sources.shards import Row, Shards
from toolkit.datasets.base import HubFields, SpeechDataset, recording

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


@spec
class SpeechCommands(SpeechDataset, HubFields):
    """Isolated English words of many speakers, 1 s each, with the official splits; background noise is left out."""

    sharded: ClassVar[bool] = True

    path: str | None = option(None, "local copy of the repository; null: fetched from the hub")
    repository: str = option("google/speech_commands", "repository on the hub")
    revision: str | None = option(hub.EXPORT, "branch, tag or commit of the repository; not used with a path")
    version: str = option("v0.02", "version of the corpus: v0.01 (30 words) or v0.02 (35)")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        for split in self.kept:
            yield from hub.examples(self, split, hub.rows(*self._part(split), cache, ("file", "label")))

    def shards(self, split: str, cache: Path) -> Shards:
        return hub.shards(*self._part(split), cache, ("file", "label"))

    def example(self, split: str, row: Row) -> Example | None:
        text, name = row.fields["label"], row.fields["file"].removesuffix(".wav")
        if text == "_silence_":
            return None
        return recording(name, split, text, row.read, row.where, row.file_name, row.stamp)

    def _part(self, split: str) -> tuple[str, str, str, str | None]:
        source, revision = hub.located(self.path, self.repository, self.revision)
        return source, self.version, split, revision
