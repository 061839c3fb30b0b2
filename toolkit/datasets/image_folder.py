"""``dataset=image_folder``: your own images, in a folder for each class.

Layouts:

- ``CLASS/*.jpg``: all splits are carved from it;
- ``train/CLASS/*.jpg``, optionally with ``validation`` (or ``dev``, ``val``, ``valid``) and ``test``.

Missing validation and test splits are carved from the training split, with the same fraction of every class. The folder
of a class may have subfolders. Hidden files and the files of file browsers are ignored everywhere; other files that are
not images are ignored only outside the folders of the classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.data.example import SPLITS, Example
from toolkit.data.media.image import FORMATS
from toolkit.data.problems import Problem, bad_name, nearest
from toolkit.data.sources.folder import ALIASES, name_in, split_of, unusable
from toolkit.datasets.base import ImageDataset, check_fractions, labelled_image

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

LEFT_BEHIND = {"thumbs.db", "desktop.ini", "icon\r", "@eadir", "__macosx"}  # files of file browsers


@spec
class ImageFolder(ImageDataset):
    """Your own images."""

    layout_hint: ClassVar[str] = "; is dataset.path the folder with the folders of the classes or of the splits?"

    path: str | None = option(None, "folder with a folder for each class or each split")
    channels: Literal[1, 3] | None = option(3, "3: colour, 1: grey; null: unchanged, which must be one kind")
    test_fraction: float = option(0.1, "fraction of each class that is carved if the test split is missing", ge=0, lt=1)

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.path:
            yield "path", "not set; set dataset.path=FOLDER, the folder of your images"
        yield from check_fractions(self.validation_fraction, self.test_fraction)

    def carved(self) -> dict[str, float]:
        return {"test": self.test_fraction, "validation": self.validation_fraction}

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        root = Path(self.path or "").expanduser()
        try:
            yield from _read(root)
        except PermissionError as error:
            yield Problem("unreadable", str(error.filename), f"{error.strerror}, expected a folder to read", fatal=True)


def _read(root: Path) -> Iterator[Example | Problem]:
    if problem := unusable(root, "images", "a folder of images for each class"):
        yield problem
        return
    splits = _split_folders(root)
    if splits:
        yield from _strays(root, splits)
    for folder, split in splits.items() or {root: "train"}.items():
        yield from _split(root, folder, split)


def _split_folders(root: Path) -> dict[Path, str]:
    """Find the folders named like a split. If none of them has subfolders they are classes: ``train`` is a vehicle."""
    named = {folder: split_of(folder) for folder in _folders(root) if split_of(folder) in SPLITS}
    if not any(_folders(folder) for folder in named):
        return {}
    return dict(sorted(named.items(), key=lambda item: SPLITS.index(item[1])))


def _split(root: Path, folder: Path, split: str) -> Iterator[Example | Problem]:
    where, classes = name_in(root, folder), _folders(folder)
    for file in _files(folder):
        if file.suffix.lower() in FORMATS:
            yield Problem(
                "no class", name_in(root, file), "found an image beside the class folders, expected it in one of them"
            )
    if not classes or {split_of(c) for c in classes} <= set(SPLITS):
        names = ", ".join(c.name for c in classes) or "no folder"
        yield Problem("no classes", where, f"found {names}, expected a folder for each class", fatal=True)
        return
    items = {class_folder: list(_class(root, class_folder, split)) for class_folder in classes}
    any_image = any(isinstance(item, Example) for content in items.values() for item in content)
    if not any_image:
        # Carving this split from the training split would hide the mistake.
        yield Problem("empty split", where, "found no image in its classes, expected at least one", fatal=True)
    for class_folder, content in items.items():
        yield from content
        if not content and any_image:
            yield Problem("empty class", name_in(root, class_folder), "found no image in it, expected at least one")


def _class(root: Path, folder: Path, split: str) -> Iterator[Example | Problem]:
    denied: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=denied.append):
        folders[:] = sorted(name for name in folders if _is_visible(name))
        for name in sorted(name for name in files if _is_visible(name)):
            yield _image(root, Path(parent, name), folder.name, split)
    for error in denied:
        yield Problem("unreadable", name_in(root, Path(error.filename)), f"{error.strerror}, expected a folder to read")


def _image(root: Path, path: Path, text: str, split: str) -> Example | Problem:
    where = name_in(root, path)
    kind, message = bad_name(where)
    if kind:
        return Problem(kind, ascii(where), f"{message}; rename it")
    if path.suffix.lower() not in FORMATS:
        kinds = ", ".join(sorted(FORMATS))
        return Problem("not an image", where, f"named {path.suffix or 'without suffix'}, expected one of {kinds}")
    if path.exists() and not path.is_file():
        return Problem("not a file", where, "neither a file nor a link to one")
    return labelled_image(where, split, text, path, where)


def _strays(root: Path, splits: dict[Path, str]) -> Iterator[Problem]:
    """Yield a problem for each folder of images beside the splits, and for two folders of one split."""
    for folder in _folders(root):
        if folder not in splits and any(
            Path(name).suffix.lower() in FORMATS for _, _, files in os.walk(folder) for name in files
        ):
            hint = nearest(folder.name, [*SPLITS, *ALIASES])
            message = f"found the folder {folder.name!r}, expected {', '.join(SPLITS)}{hint}"
            yield Problem("unknown split", f"{folder.name}/", message, fatal=True)
    first: dict[str, Path] = {}
    for folder, split in splits.items():
        if (other := first.setdefault(split, folder)) is not folder:
            yield Problem(
                "ambiguous split",
                f"{folder.name}/",
                f"found {other.name}/ too; both mean {split}, expected one",
                fatal=True,
            )


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in LEFT_BEHIND


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_visible(path.name))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.is_dir() and _is_visible(path.name))
