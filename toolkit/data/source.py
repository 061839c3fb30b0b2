"""Base class of the dataset specs, with the fields that every dataset has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.data.columns.column import Column, mismatches
from toolkit.data.example import SPLITS, Example
from toolkit.data.problems import Problem

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from toolkit.config.schema import Run
    from toolkit.data.sources.shards import Row, Shards


@spec
class Source:
    """A dataset: its columns, and examples with a value for each of them.

    A dataset overrides :meth:`examples`. One that can be streamed sets ``sharded`` and overrides :meth:`shards` and
    :meth:`example`.
    """

    columns: ClassVar[Mapping[str, type[Column[Any]]]]  # name -> kind of content
    sharded: ClassVar[bool] = False
    layout_hint: ClassVar[str] = ""  # ends the message that only one class was found

    split: Literal["train", "validation", "test"] | None = option(
        None, "with evaluate=RUN_FOLDER: the only split to evaluate; null: all but train"
    )
    on_bad: Literal["refuse", "drop"] = option(
        "refuse", "what to do about bad examples: refuse the data and list all problems, or drop and count them"
    )
    max_dropped: float = option(
        0.01,
        "on_bad=refuse: largest fraction of the examples of each split that is dropped and listed instead, by the "
        "dataset and once more by the model, or of a stream's pool, if nothing else is wrong",
        ge=0,
        lt=1,
    )
    repeats: Literal["bad", "keep"] = option(
        "keep", "the same example in two splits: bad, or kept and counted in the log"
    )
    streaming: bool = option(
        False, "read the training split during training, a pool of examples at a time, and keep none of it"
    )
    pool: int = option(1024, "streaming: examples of a pool, which is cut into batches of similar length", ge=1)
    lanes: int = option(8, "streaming: shards that are read side by side; a multiple of the number of processes", ge=1)
    sample: int = option(10_000, "streaming: first examples, from which tokenizer and features are learned", ge=1)

    def allowed(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return how many examples of each split may be dropped though bad ones are refused."""
        return {split: int(self.max_dropped * size) for split, size in sizes.items()}

    @property
    def kept(self) -> tuple[str, ...]:
        """The splits that are read as a whole."""
        return SPLITS[1:] if self.streaming else SPLITS

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        """Yield every example in a stable order, and the problems with those that cannot be used.

        Args:
            cache: folder for downloads.
            progress: a running ``rich.progress.Progress``.
        """
        raise NotImplementedError

    def shards(self, split: str, cache: Path) -> Shards:
        """List the files of a split that is streamed.

        Raises:
            DataError: they cannot be listed.
        """
        raise NotImplementedError

    def example(self, split: str, row: Row) -> Example | Problem | None:
        """Convert a record of a shard; None skips it."""
        raise NotImplementedError

    def flaw(self, example: Example) -> tuple[str, str]:
        """Return kind and message of what is wrong between an example's columns; two empty strings if nothing is."""
        return "", ""

    def arrange(self, examples: list[Example]) -> list[Example]:
        """Assign examples to splits that the data lacks, once unusable ones are gone."""
        return examples

    def mismatches(self, run: Run) -> Iterator[tuple[str, str]]:
        """Yield ``(key, message)`` for each component of the run that does not fit these columns."""
        yield from mismatches(self.columns, run)

    def check_run(self, run: Run) -> Iterator[tuple[str, str]]:
        """Yield ``(field, message)`` of each conflict between the dataset, its columns and the run."""
        for kind in dict.fromkeys(self.columns.values()):
            yield from kind.conflicts(self)
        if self.split and not run.evaluate:
            yield "split", f"{self.split} is not supported without evaluate=RUN_FOLDER; set dataset.split=null"
        if self.streaming and not self.sharded:
            name = type(self).__name__
            yield "streaming", f"true is not supported by {name}, which has no shards; set dataset.streaming=false"
        if self.streaming and self.split == "train":
            yield "split", "train is not supported with dataset.streaming=true; set dataset.streaming=false"
