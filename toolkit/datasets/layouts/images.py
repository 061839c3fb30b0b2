"""Layouts of images: a folder for each class, lists of files and labels, ImageNet's flat validation folder.

Hidden files, READMEs and the files of file browsers are ignored. An image's id is its path in the dataset's folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from toolkit.data.example import SPLITS, Example
from toolkit.data.media.image import FORMATS
from toolkit.data.problems import Problem, bad_name, nearest
from toolkit.data.sources.folder import ALIASES, is_beside, name_in, split_of, unusable
from toolkit.data.sources.lines import read_lines
from toolkit.datasets.base import labelled_image
from toolkit.datasets.layouts.layout import split_in
from toolkit.datasets.layouts.lists import Entry, find, form_of, is_list, read_list

Items = Iterator[Example | Problem]

LEFT_BEHIND = {"thumbs.db", "desktop.ini", "icon\r", "@eadir", "__macosx"}  # files of file browsers
ANY_NAME = "images"  # a folder of images below a list


def read(root: Path) -> Items:
    """Yield the images of a folder, and the problems with it."""
    if problem := unusable(root, "images", "a folder of images for each class"):
        yield problem
        return
    splits, lists = _split_folders(root), _lists(root)
    metadata = [file for file in lists if _is_metadata(file)]
    if not metadata and not splits and not _has_classes(root):
        # a list without the columns is refused by name where nothing else is there
        metadata = lists or [file for file in _files(root) if is_list(file) and _is_metadata(file)]
    if metadata:
        yield from _all_lists(root, metadata)
        return
    if splits:
        yield from _strays(root, splits)
    classes = sorted({folder.name for split in splits if _has_classes(split) for folder in _folders(split)})
    for folder, split in splits.items() or {root: "train"}.items():
        yield from _split(root, folder, split, classes)


def _split_folders(root: Path) -> dict[Path, str]:
    """Find the folders named like a split. If none has subfolders or a list they are classes: a train is a vehicle."""
    named = {folder: split_of(folder) for folder in _folders(root) if split_of(folder) in SPLITS}
    if not any(_folders(folder) or _lists(folder) for folder in named):
        return {}
    return dict(sorted(named.items(), key=lambda item: SPLITS.index(item[1])))


def _split(root: Path, folder: Path, split: str, known: Sequence[str]) -> Items:
    """Yield the images of a split: of a list, or of a folder for each class.

    Args:
        root: the dataset's folder.
        folder: that of the split, which may be the same.
        split: its name.
        known: names of all folders of classes.
    """
    classes, images = _folders(folder), [file for file in _files(folder) if file.suffix.lower() in FORMATS]
    lists = _lists(folder)
    if metadata := [file for file in lists if _is_metadata(file)]:
        lists = metadata
    elif _has_classes(folder):
        lists = []
    elif folder != root and not lists:
        lists = [file for file in _lists(root) if split_in(file.stem) == split]
    if lists:
        yield from _one_list(root, lists, folder, split, known)
    elif numbers := _numbers(root, folder, split) if images and not classes else None:
        yield _only_numbers(root, numbers, images)
    else:
        yield from _class_folders(root, folder, split, classes, images)


# --- lists -----------------------------------------------------------------------------------------------------------


def _lists(folder: Path) -> list[Path]:
    """List the files of a folder that have names of images and their labels."""
    return [file for file in _files(folder) if is_list(file) and file.is_file() and form_of(file).complete]


def _is_metadata(file: Path) -> bool:
    return file.stem.lower() == "metadata"


def _numbers(root: Path, folder: Path, split: str) -> Path | None:
    """Find a ground truth that has only numbers, as ImageNet's development kit does."""
    for file in (*_files(folder), *(_files(root) if folder != root else ())):
        if file.suffix == ".txt" and split_in(file.stem) == split and file.is_file():
            lines = read_lines(file, file.name)
            if lines and not isinstance(lines, Problem) and all(line.strip().isdigit() for line in lines):
                return file
    return None


def _only_numbers(root: Path, file: Path, images: Sequence[Path]) -> Problem:
    message = (
        "found only numbers, which ImageNet's development kit explains in meta.mat; expected a line 'FILE CLASS' for "
        "each image: join line n with the name of image n and the WNID of that ILSVRC2012_ID, such as "
        f"'{images[0].name} n01751748'"
    )
    return Problem("no classes", name_in(root, file), message, fatal=True)


def _all_lists(root: Path, lists: Sequence[Path]) -> Items:
    """Yield the images of the lists of a folder: one for all splits, or one for each, by its name."""
    of_split = {file: split_in(file.stem) for file in lists}
    if any(of_split.values()):
        lists = [file for file in lists if of_split[file]]
    for split in dict.fromkeys(of_split[file] for file in lists):
        yield from _one_list(root, [file for file in lists if of_split[file] == split], root, split, [])


def _one_list(root: Path, lists: Sequence[Path], folder: Path, split: str, classes: Sequence[str]) -> Items:
    """Yield the images of a list.

    Args:
        root: the dataset's folder.
        lists: should be one.
        folder: in which, or in whose folder ``images``, the files are.
        split: of all images; empty: the list says it, or it is train.
        classes: names of the folders of classes; a label may be a position among them.
    """
    if len(lists) > 1:
        names = " and ".join(name_in(root, file) for file in lists)
        yield Problem("ambiguous metadata", names, "found both, expected one list of files and labels", fatal=True)
        return
    (file,) = lists
    where = name_in(root, file)
    items = list(read_list(file, where))
    entries = [item for item in items if isinstance(item, Entry)]
    bases = [folder, folder / ANY_NAME, *([root] if folder != root else [])]
    bases += [root / name for name in _names_of(root, split or "train")]
    paths = [find(bases, entry.file) for entry in entries]
    if entries and not any(paths):
        looked = ", ".join(name_in(root, base) for base in bases if base.is_dir())
        message = f"found none of its {len(entries):,} files, such as {entries[0].file[:80]!r}, in {looked}"
        yield Problem("missing files", where, message, fatal=True)
        return
    yield from (item for item in items if isinstance(item, Problem))
    if problem := _counted_from_one(where, entries, classes):
        yield problem
        return
    for entry, path in zip(entries, paths, strict=True):
        yield _listed(root, entry, path, split, classes)


def _names_of(root: Path, split: str) -> list[str]:
    return [folder.name for folder in _folders(root) if split_of(folder) == split]


def _counted_from_one(where: str, entries: Sequence[Entry], classes: Sequence[str]) -> Problem | None:
    numbers = [int(entry.label) for entry in entries if entry.label.isdecimal() and entry.label not in classes]
    named = any(name.isdecimal() for name in classes)  # the names are numbers, so a number is no position
    if not classes or not numbers or (max(numbers) < len(classes) and not named):
        return None
    message = (
        f"found the class {max(numbers)}, expected the name of a class's folder or its position in sorted order, 0 to "
        f"{len(classes) - 1}; the numbers of ImageNet's development kit are others"
    )
    return Problem("unknown class", where, message, fatal=True)


def _listed(root: Path, entry: Entry, path: Path | None, split: str, classes: Sequence[str]) -> Example | Problem:
    kind, message = bad_name(entry.file)
    if kind:
        return Problem(kind, entry.where, f"{message}; rename it")
    if ".." in PurePosixPath(entry.file).parts or (path and not path.is_relative_to(root)):
        message = f"found {entry.file[:80]!r}, expected a file inside the folder"
        return Problem("outside the folder", entry.where, message)
    if path is None:
        return Problem("missing file", entry.where, f"found no file {entry.file[:80]!r}")
    if split and entry.split not in ("", split):
        message = f"the column split says {entry.split!r}, but the list is of {split!r}"
        return Problem("contradicting split", entry.where, message)
    label = entry.label
    if classes and label not in classes and label.isdecimal():
        label = classes[int(label)]
    return _image(root, path, label, split or entry.split or _split_above(root, path), entry.where)


def _split_above(root: Path, path: Path) -> str:
    """Return the split whose folder holds an image; train if none does."""
    folder = root / path.relative_to(root).parts[0]
    return split_of(folder) if folder != path and split_of(folder) in SPLITS else "train"


# --- a folder for each class -----------------------------------------------------------------------------------------


def _class_folders(root: Path, folder: Path, split: str, classes: Sequence[Path], images: Sequence[Path]) -> Items:
    where = name_in(root, folder)
    if not classes or {split_of(c) for c in classes} <= set(SPLITS):
        yield Problem("no classes", where, _unknown(root, folder, classes, images), fatal=True)
        return
    for file in images:
        yield Problem(
            "no class", name_in(root, file), "found an image beside the class folders, expected it in one of them"
        )
    items = {class_folder: list(_class(root, class_folder, split)) for class_folder in classes}
    any_image = any(isinstance(item, Example) for content in items.values() for item in content)
    if not any_image:
        # Carving this split from the training split would hide the mistake.
        yield Problem("empty split", where, "found no image in its classes, expected at least one", fatal=True)
    for class_folder, content in items.items():
        yield from content
        if not content and any_image:
            yield Problem("empty class", name_in(root, class_folder), "found no image in it, expected at least one")


def _unknown(root: Path, folder: Path, classes: Sequence[Path], images: Sequence[Path]) -> str:
    """Describe what a folder without classes has, and the nearest layout."""
    files = [file for file in _files(folder) if file not in images]
    names = [f"{path.name}/" for path in classes] + [path.name for path in (*images, *files)]
    shown = ", ".join(ascii(name)[1:-1] if bad_name(name)[0] else name for name in names[:4]) or "no folder"
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    below = [*images, *(file for path in classes for file in _files(path) if file.suffix.lower() in FORMATS)]
    example = name_in(folder, below[0]) if below else "a.jpg"
    table = "metadata.csv" if folder == root else f"{folder.name}.csv"
    message = f"found {shown}{more}; expected a folder for each class, such as cat/{PurePosixPath(example).name}, or "
    return message + f"{table} with the lines 'file_name,label', '{example},cat'"


def _class(root: Path, folder: Path, split: str) -> Items:
    denied: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=denied.append):
        folders[:] = sorted(filter(_is_folder_visible, folders))
        for name in sorted(name for name in files if _is_visible(name)):
            where = name_in(root, Path(parent, name))
            yield _image(root, Path(parent, name), folder.name, split, where)
    for error in denied:
        yield Problem("unreadable", name_in(root, Path(error.filename)), f"{error.strerror}, expected a folder to read")


def _image(root: Path, path: Path, label: str, split: str, where: str) -> Example | Problem:
    name, origin = name_in(root, path), where
    kind, message = bad_name(name)
    if kind:
        return Problem(kind, ascii(where), f"{message}; rename it")
    where = where if name in where else f"{where} ({name})"
    if path.suffix.lower() not in FORMATS:
        kinds = ", ".join(sorted(FORMATS))
        return Problem("not an image", where, f"named {path.suffix or 'without suffix'}, expected one of {kinds}")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        link = f"a link to {os.readlink(path)!r}: " if path.is_symlink() else ""
        return Problem("unreadable", where, f"{link}{error.strerror}")
    if not stat.S_ISREG(mode):
        return Problem("not a file", where, "neither a file nor a link to one")
    return labelled_image(name, split, label, path, origin)


def _strays(root: Path, splits: Mapping[Path, str]) -> Iterator[Problem]:
    """Yield a problem for each folder of images beside the splits, and for two folders of one split."""
    for folder in _folders(root):
        if folder not in splits and _any_image(folder):
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


def _has_classes(folder: Path) -> bool:
    """Tell whether a folder has the folders of two classes or more."""
    classes = (path for path in _folders(folder) if split_of(path) not in SPLITS and _any_image(path))
    return next(classes, None) is not None and next(classes, None) is not None


def _any_image(folder: Path) -> bool:
    return any(Path(name).suffix.lower() in FORMATS for _, _, files in os.walk(folder) for name in files)


def _is_visible(name: str) -> bool:
    accompanies = is_beside(name) and PurePosixPath(name).suffix.lower() not in FORMATS
    return _is_folder_visible(name) and not accompanies


def _is_folder_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in LEFT_BEHIND


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_folder_visible(path.name))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.is_dir() and _is_visible(path.name))
