"""``dataset=fsdd``: the Free Spoken Digit Dataset, English digits zero to nine, six speakers, 8 kHz.

Origin: https://github.com/Jakobovski/free-spoken-digit-dataset. Licence: CC BY-SA 4.0 (Zohar Jackson and the
contributors). 3,000 recordings, 0.36 h. The official rule: takes 0 to 4 of each digit and speaker are the test set, 5
to 49 the training set. ``validation`` is carved from the latter: takes 5 to 9. That makes 2,400 / 300 / 300.

Without a path, ``mteb/free-spoken-digit-dataset`` is read from the hub, which is untested: its layout (columns audio
and label, names of the files as in the checkout, which the official rule needs) could not be verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.data.sources import hub
from toolkit.datasets import audio_folder
from toolkit.datasets.base import HubFields, SpeechDataset, recording
from toolkit.datasets.layouts.folders import split_folders

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FILE_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)")


@spec
class FSDD(SpeechDataset, HubFields):
    """Isolated digits of six speakers."""

    silence: float = option(
        0.15, "silence added before and after each recording, in seconds; the clips are tightly trimmed", ge=0, le=10
    )
    path: str | None = option(
        None, "a checkout of the repository, or split folders with metadata.csv; null: fetched from the hub"
    )
    repository: str = option("mteb/free-spoken-digit-dataset", "repository on the hub, used without a path")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        if self.path is None:
            yield from self._from_hub(cache)
            return
        root = Path(self.path)
        if problem := audio_folder.unusable(root):
            yield problem
        elif split_folders(root):
            splits = audio_folder.AudioFolder(path=self.path, validation_fraction=0, test_fraction=0)  # type: ignore[call-arg]
            yield from splits.examples(cache, progress)
        else:
            yield from self._from_checkout(root)

    def _from_checkout(self, root: Path) -> Iterator[Example | Problem]:
        folder = root / "recordings" if (root / "recordings").is_dir() else root
        files = sorted(folder.glob("*.wav"))
        for file in files:
            where = file.relative_to(root).as_posix()
            yield _recording(file.stem, file, where, "") or Problem(
                "unknown file name", where, "expected DIGIT_SPEAKER_TAKE.wav, such as 7_jackson_32.wav"
            )
        if not files:
            message = f"found no *.wav in {folder}, expected a checkout of the repository or folders train, test, ..."
            yield Problem("empty folder", f"dataset.path={root}", message, fatal=True)

    def _from_hub(self, cache: Path) -> Iterator[Example | Problem]:
        for split in ("train", "test"):
            for row in hub.rows(self.repository, None, split, self.revision, cache, ("label",)):
                if isinstance(row, Problem):
                    yield row
                    continue
                yield _recording(Path(row.file_name).stem, row.read, row.where, row.stamp) or Problem(
                    "unknown file name",
                    row.where,
                    f"found {row.file_name!r}, expected DIGIT_SPEAKER_TAKE.wav, which the official rule needs: clone "
                    "https://github.com/Jakobovski/free-spoken-digit-dataset and set dataset.path to it",
                    fatal=True,
                )


def _recording(stem: str, audio: Any, where: str, stamp: str) -> Example | None:
    match = FILE_NAME.fullmatch(stem)
    if match is None:
        return None
    take = int(match["take"])
    split = "test" if take < 5 else "validation" if take < 10 else "train"
    return recording(stem, split, DIGITS[int(match["digit"])], audio, where, f"{stem}.wav", stamp)
