"""``dataset=audio_folder``: your own recordings, in a folder.

The layouts are in :mod:`toolkit.datasets.layouts.speech`, in the order in which they are tried. Missing validation and
test splits are carved from the training split, by default so that no transcript is in two splits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config.spec import option, spec
from toolkit.data.columns.text import clean
from toolkit.data.example import Example
from toolkit.data.normalize import normalize
from toolkit.data.problems import Problem, parted
from toolkit.data.sources.folder import cut as fill_splits
from toolkit.data.sources.folder import unusable as unusable_folder
from toolkit.datasets.base import SpeechDataset, check_fractions
from toolkit.datasets.layouts import speech
from toolkit.datasets.layouts.folders import SKETCH, TEXT_COLUMNS, split_folders
from toolkit.datasets.layouts.layout import Source, chosen

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


@spec
class AudioFolder(SpeechDataset):
    """Your own recordings with transcripts."""

    path: str | None = option(None, "folder with the recordings and their transcripts")
    text_column: str | None = option(None, f"column of the transcript; null: the first of {', '.join(TEXT_COLUMNS)}")
    validation: str | None = option(None, "name of the validation set, if there are several: dev-clean")
    test: str | None = option(None, "name of the test set, if there are several: test-clean")
    validation_fraction: float = option(
        0.1, "fraction of train to carve if the validation split is missing", ge=0, lt=1
    )
    test_fraction: float = option(0.1, "fraction of train to carve if the test split is missing", ge=0, lt=1)
    split_seed: int = option(0, "seed of the carved splits", ge=0)
    disjoint: bool = option(
        True,
        "carve splits so that no transcript is in two; false for isolated words, where every split needs every word",
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.path:
            yield "path", "not set; set dataset.path=FOLDER, the folder of your recordings"
        yield from check_fractions(self.validation_fraction, self.test_fraction)

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        root = Path(self.path or "")
        if problem := unusable(root):
            yield problem
            return
        layout = speech.detect(root)
        if isinstance(layout, Problem):
            yield layout
            return
        form, all_parts = layout
        parts, problems = chosen(all_parts, {"validation": self.validation, "test": self.test})
        items = (item for part in parts for item in form.read(Source(root, self.text_column), part))
        recordings, bad = parted(items)
        yield from [*problems, *bad]
        # A split that the data names but leaves empty is not carved: that would hide the mistake.
        present = {r.split for r in recordings} | {part.split for part in parts}
        present |= {split for split, _ in split_folders(root)}
        if any(problem.fatal for problem in [*problems, *bad]):
            present |= {"validation", "test"}  # what is left may be too little to carve from
        yield from cut(
            recordings,
            0 if "validation" in present else self.validation_fraction,
            0 if "test" in present else self.test_fraction,
            self.split_seed,
            self.disjoint,
            self.normalize,
        )


def unusable(root: Path) -> Problem | None:
    """Return the problem with a path that should be a folder of recordings; None if there is none."""
    return unusable_folder(root, "recordings", SKETCH)


def cut(
    recordings: Sequence[Example],
    validation: float,
    test: float,
    seed: int,
    disjoint: bool,
    steps: Sequence[str] = (),
) -> Iterator[Example | Problem]:
    """Move fractions of the training split to validation and test.

    Recordings with the same transcript stay together (``disjoint``), and those with a character that no other has stay
    in train if possible. They are taken in the order of a hash of seed and transcript, which depends neither on the
    order of the files nor on the other recordings.

    Args:
        recordings: of all splits.
        validation, test: fractions of the training split.
        seed: selects the recordings.
        disjoint: keep equal transcripts together.
        steps: of ``dataset.normalize``, after which transcripts are compared.
    """
    if not validation and not test:
        yield from recordings
        return
    texts = {id(one): _transcript(one, steps) for one in recordings if one.split == "train"}
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in recordings:
        if example.split == "train":
            groups[texts[id(example)] if disjoint else example.id].append(example)
    total = sum(map(len, groups.values()))
    message = (
        f"none of the {len(groups)} different transcripts of {total} recordings is rare enough for a split of its "
        "own; provide the splits, or set dataset.disjoint=false to allow a transcript in several splits"
    )
    # the recogniser can only learn the characters that train has
    yield from fill_splits(recordings, groups, validation, test, seed, message, lambda one: texts[id(one)])


def _transcript(example: Example, steps: Sequence[str]) -> str:
    """Return the transcript of a recording as the run uses it."""
    return clean(normalize(clean(str(example.values["text"])), steps))
