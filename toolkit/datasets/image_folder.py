"""``dataset=image_folder``: your own images, in a folder for each class, or with a list of their classes.

Layouts:

- ``CLASS/*.jpg``: all splits are carved from it;
- ``train/CLASS/*.jpg``, optionally with ``validation`` (or ``dev``, ``val``, ``valid``) and ``test``;
- a list of files and labels: ``metadata.csv`` (separated by comma, semicolon or tab) or ``metadata.jsonl`` with
  ``file_name`` (or ``image``, ``file``, ``filename``, ``path``) and ``label`` (or ``class``, ``category``), optionally
  ``split``; or one such list in each of the folders of the splits; or ``train.csv``, ``val.csv``, ``test.csv``;
- ImageNet's flat validation folder: ``train/CLASS/*.JPEG``, ``val/*.JPEG`` and a list ``val.txt`` with a line
  ``FILE CLASS`` for each image, where the class is a folder's name or its position in sorted order, or
  ``LOC_val_solution.csv`` of Kaggle.

A list named ``metadata`` decides the classes, wherever the files are; other lists are read only where there is no
folder for each class. Images that a list lacks are left out.

Missing validation and test splits are carved from the training split, with the same fraction of every class. The folder
of a class may have subfolders. Hidden files, READMEs and the files of file browsers are ignored everywhere; other files
that are not images are ignored only outside the folders of the classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.datasets.base import ImageDataset, check_fractions
from toolkit.datasets.layouts import images

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


@spec
class ImageFolder(ImageDataset):
    """Your own images."""

    layout_hint: ClassVar[str] = "; is dataset.path the folder with the folders of the classes or of the splits?"

    path: str | None = option(
        None, "folder with a folder for each class or each split, or with a list of files and labels"
    )
    channels: Literal[1, 3] | None = option(3, "3: colour, 1: grey; null: unchanged, which must be one kind")
    test_fraction: float = option(0.1, "fraction of each class that is carved if the test split is missing", ge=0, lt=1)

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.path:
            yield "path", "not set; set dataset.path=FOLDER, the folder of your images"
        yield from check_fractions(self.validation_fraction, self.test_fraction)

    def carved(self) -> dict[str, float]:
        return {"test": self.test_fraction, "validation": self.validation_fraction}

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        root = Path(self.path or "")
        try:
            yield from images.read(root)
        except PermissionError as error:
            yield Problem("unreadable", str(error.filename), f"{error.strerror}, expected a folder to read", fatal=True)
