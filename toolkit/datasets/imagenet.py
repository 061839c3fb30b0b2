"""``dataset=imagenet``: ImageNet-1k (Russakovsky et al. 2015), 1.28 million photographs in 1,000 classes, from the hub.

Access to the repository ``ILSVRC/imagenet-1k`` must be requested on its page. Its validation split, whose classes are
public, is the test split here, as in published results; the validation split is carved from the training split. Images
are read one at a time and decoded once to ``size`` x ``size`` in the cache: 193 GB at 224, 16 GB at 64. With
``dataset.streaming=true`` the last of the training files form the validation split.

Layout: Parquet files ``data/train-00000-of-N.parquet`` with image and label, as the repository's card declares them;
the names of the files were not verified. It is tested against a stand-in of the hub's interface; the hub itself is
untested here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.data.sources import hub
from toolkit.data.sources.shards import Row, Shards
from toolkit.datasets.base import HubFields, ImageDataset, labelled_image

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


@spec
class ImageNet(ImageDataset, HubFields):
    """Photographs in 1,000 classes."""

    sharded: ClassVar[bool] = True

    size: int | None = option(224, "height and width in pixels of the central square", ge=1, le=4096)
    channels: Literal[1, 3] | None = option(3, "3: colour; 1: grey")
    validation_fraction: float = option(
        0.01, "fraction of the training images of each class that is carved for the validation split", ge=0, lt=1
    )
    repeats: Literal["bad", "keep"] = option(
        "keep", "the same image in two splits or classes: bad, or kept and counted in the log"
    )
    path: str | None = option(None, "local copy of the repository; null: fetched from the hub")
    repository: str = option("ILSVRC/imagenet-1k", "repository on the hub")

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        for split in ("test",) if self.streaming else ("train", "test"):
            yield from hub.examples(self, split, hub.rows(*self._part(split), cache, ("label",), "image"))
        if self.streaming:
            yield from self.shards("validation", cache).all_examples(self, "validation")

    def shards(self, split: str, cache: Path) -> Shards:
        """List the shards of a split; the validation split takes whole files, since a stream cannot carve images."""
        all_shards = hub.shards(*self._part(split), cache, ("label",), "image")
        fraction, total = self.validation_fraction, len(all_shards.files)
        first = total - max(1, round(fraction * total)) if fraction else total
        selection = {"train": slice(first), "validation": slice(first, None), "test": slice(None)}[split]
        return replace(all_shards, files=all_shards.files[selection])

    def example(self, split: str, row: Row) -> Example:
        name, text = f"{split}/{row.number}", row.fields["label"]
        return labelled_image(name, split, text, row.read, row.where, row.file_name, row.stamp)

    def _part(self, split: str) -> tuple[str, None, str, str | None]:
        name = "validation" if split == "test" else "train"
        source, revision = hub.located(self.path, self.repository, self.revision)
        return source, None, name, revision
