"""Layouts of images as they are published: lists of files and labels, ImageNet's flat validation folder."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.bad_pictures import encoded, good_folder, pixels
from tests.support.corpora import prepare, sizes
from tests.support.image_runs import folder
from toolkit.data.split import Corpus
from toolkit.errors import DataError

Rows = Sequence[tuple[str, str, str]]  # file, class, split


def corpus_of(path: Path, **fields: str) -> Corpus:
    return prepare(folder(path, **fields), path.parent / "cache")


def classes_of(corpus: Corpus) -> dict[str, str]:
    pairs = (zip(split.ids, split.references, strict=True) for split in corpus.splits.values())
    return {name: label for items in pairs for name, label in items}


def table(delimiter: str, header: str) -> Callable[[Rows], str]:
    def text(rows: Rows) -> str:
        lines = [header.split(","), *([f'"{name}"' if delimiter in name else name, *rest] for name, *rest in rows)]
        return "".join(delimiter.join(line[: len(lines[0])]) + "\n" for line in lines)

    return text


def json_lines(rows: Rows) -> str:
    return "".join(json.dumps({"file_name": a, "label": b, "split": c, "more": 1.5}) + "\n" for a, b, c in rows)


LISTS: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "comma": ("metadata.csv", table(",", "file_name,label,split")),
    "semicolon": ("labels.csv", table(";", "Filename,Class,split")),
    "tab": ("metadata.tsv", table("\t", "path,category,split")),
    "JSON lines": ("metadata.jsonl", json_lines),
}


@pytest.fixture
def flat(tmp_path: Path) -> Iterator[Rows]:
    """Yield the rows of images in one folder, ``data/images``."""
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/.cache").mkdir()
    (tmp_path / "data/README.md").write_text("x")
    rows = []
    for i in range(12):
        name = f"images/a, {i}.png"
        (tmp_path / "data" / name).write_bytes(encoded(pixels(i)))
        rows.append((name, ("cat", "dog")[i % 2], ("train", "train", "dev", "test")[i // 2 % 4]))
    yield rows


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_files_and_labels(name: str, flat: Rows, tmp_path: Path) -> None:
    file, text = LISTS[name]
    (tmp_path / "data" / file).write_text(text(flat))
    corpus = corpus_of(tmp_path / "data")
    assert sizes(corpus) == (8, 2, 2)
    assert classes_of(corpus) == {file: label for file, label, _ in flat}
    origin = corpus.splits["test"].origins[0]
    assert origin.startswith(f"{file}, line {7 if name == 'JSON lines' else 8} (")


def test_lists_of_splits_by_name_or_by_folder(flat: Rows, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "dev", "test"):
        rows = [(name.removeprefix("images/"), label, "") for name, label, of in flat if of == split]
        (data / f"{split}.csv").write_text("".join(f'"{name}",{label}\n' for name, label, _ in rows))
    (data / "sample_submission.csv").write_text("id,label\n1,cat\n")
    named = corpus_of(data)
    assert sizes(named) == (8, 2, 2) and classes_of(named) == {file: label for file, label, _ in flat}
    for split in ("train", "dev", "test"):
        (data / split).mkdir()
        (data / f"{split}.csv").rename(data / split / "metadata.csv")
        for name, _, of in flat:
            if of == split:
                (data / name).rename(data / split / Path(name).name)
        (data / split / "metadata.csv").write_text("file_name,label\n" + (data / split / "metadata.csv").read_text())
    shutil.rmtree(data / "images")
    (data / "sample_submission.csv").unlink()
    assert sizes(corpus_of(data)) == (8, 2, 2)


def test_metadata_decides_and_other_lists_are_ignored_beside_folders_of_classes(tmp_path: Path) -> None:
    files = good_folder(tmp_path / "data")
    names = [file.relative_to(tmp_path / "data").as_posix() for file in files]
    before = corpus_of(tmp_path / "data")
    lines = [f"{name},{'dog' if '/cat/' in name else 'cat'},{name.partition('/')[0]}" for name in names]
    text = "\n".join(["file,label,split", *lines])
    (tmp_path / "data/other.csv").write_text(text)
    assert corpus_of(tmp_path / "data").fingerprint == before.fingerprint
    (tmp_path / "data/other.csv").rename(tmp_path / "data/metadata.csv")
    found = classes_of(corpus_of(tmp_path / "data"))
    assert found.keys() == set(names) and found["test/cat/0.png"] == "dog"


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Write train by class and a flat validation folder; the test split is carved."""
    root = tmp_path / "data"
    good_folder(root)
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "validation")
    (root / "val").mkdir()
    for i in range(1, 5):
        (root / f"val/ILSVRC2012_val_0000000{i}.JPEG").write_bytes(encoded(pixels(90 + i), "JPEG"))
    return root


NAMES = [f"ILSVRC2012_val_0000000{i}" for i in range(1, 5)]
TRUTHS = {
    "val.txt": [f"{name}.JPEG {label}" for name, label in zip(NAMES, ("dog", "cat", "dog", "dog"), strict=True)],
    "val/val_labels.txt": [f"{name}.JPEG {n}" for name, n in zip(NAMES, "1011", strict=True)],
    "val_annotations.txt": [
        f"{name}.JPEG\t{c}\t0\t0" for name, c in zip(NAMES, ("dog", "cat", "dog", "dog"), strict=True)
    ],
    "ILSVRC2012_validation_ground_truth.txt": [f"{name}.JPEG 0{n}" for name, n in zip(NAMES, "1011", strict=True)],
    "LOC_val_solution.csv": [
        "ImageId,PredictionString",
        *(f"{name},{c} 1 2 3 4" for name, c in zip(NAMES, ("dog", "cat", "dog", "dog"), strict=True)),
    ],
}


@pytest.mark.parametrize("name", TRUTHS)
def test_a_flat_validation_folder_with_its_ground_truth(name: str, imagenet: Path) -> None:
    (imagenet / name).write_text("\n".join(TRUTHS[name]))
    validation = corpus_of(imagenet).splits["validation"]
    assert validation.references == ["dog", "cat", "dog", "dog"]
    assert validation.ids == [f"val/{name}.JPEG" for name in NAMES]


@pytest.mark.parametrize(
    "name, text, message",
    [
        (
            "x",
            "",
            r"val: no classes: found ILSVRC2012_val_00000001.JPEG, .*; expected a folder for each class, such as",
        ),
        ("x", "", r"or val.csv with the lines 'file_name,label', 'ILSVRC2012_val_00000001.JPEG,cat'$"),
        (
            "val.txt",
            "490\n361\n1\n2\n",
            r"val.txt: no classes: found only numbers, .* 'ILSVRC2012_val_00000001.JPEG n0",
        ),
        (
            "val.txt",
            f"{NAMES[0]}.JPEG 1\n{NAMES[1]}.JPEG 2\n",
            "val.txt: unknown class: found the class 2, expected .*0 to 1",
        ),
        (
            "val.txt",
            "a.JPEG cat\nb.JPEG dog\n",
            r"val.txt: missing files: found none of its 2 files, such as 'a.JPEG', in val",
        ),
    ],
)
def test_a_ground_truth_that_is_missing_or_of_another_form(name: str, text: str, message: str, imagenet: Path) -> None:
    (imagenet / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        corpus_of(imagenet)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "line, message",
    [
        ("gone.png,cat,train", "line 14: missing file: found no file 'gone.png'"),
        ("../a.png,cat,train", r"line 14: outside the folder"),
        ("x" * 300 + ".png,cat,train", f"line 14: missing file: found no file '{'x' * 80}'"),
        ("dangling.png,cat,train", r"line 14 \(dangling.png\): unreadable: a link to 'nowhere.png': No such file"),
        ('"images/a, 0.png",cat', "line 14: bad line: 2 fields, the header has 3"),
        ("a\0.png,cat,train", r"line 14: bad name: found 'a\\x00.png'"),
        ("\udcff.png,cat,train", "line 14: not UTF-8: byte 0xff is not UTF-8; save the file as UTF-8"),
        ('"images/a, 0.png",cat,train', r"line 14 .*duplicate file: found 'images/a, 0.png' again, first in metadata"),
        ("more.png,,train", r"line 14 \(more.png\): no class"),
        ("more.png,cat,tset", r"line 14 \(more.png\): unknown split: found 'tset'.*did you mean 'test'"),
        (",cat,train", "line 14: missing file: found no file name"),
    ],
)
def test_a_bad_line_of_a_list(line: str, message: str, flat: Rows, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "dangling.png").symlink_to("nowhere.png")
    (data / "more.png").write_bytes(encoded(pixels(50)))
    text = table(",", "file_name,label,split")(flat) + f"{line}\n"
    (data / "metadata.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message) as caught:
        corpus_of(data)
    assert caught.value.headline.startswith("1 problem ")
    dropped = corpus_of(data, on_bad="drop")
    assert sizes(dropped) == (8, 2, 2) and sum(dropped.report.dropped.values()) == 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_another_unicode_form_are_found(form: str, flat: Rows, tmp_path: Path) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    place = tmp_path / "data" / unicodedata.normalize(form, "é/ü.png")
    place.parent.mkdir()
    place.write_bytes(encoded(pixels(60)))
    rows = [*flat, (unicodedata.normalize(other, "é/ü.png"), "cat", "train"), ("images\\b.png", "dog", "train")]
    (tmp_path / "data/images/b.png").write_bytes(encoded(pixels(61)))
    (tmp_path / "data/metadata.jsonl").write_text(json_lines(rows))
    found = classes_of(corpus_of(tmp_path / "data"))
    assert found[unicodedata.normalize(form, "é/ü.png")] == "cat" and found["images/b.png"] == "dog"


def test_what_accompanies_data_is_ignored_and_images_with_such_names_are_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    good_folder(data)
    for name in ("README.txt", "train/README", "train/cat/README.md", "train/dog/LICENSE"):
        (data / name).write_text("x")
    for name in (".git", "train/.cache", "train/cat/.ipynb_checkpoints"):
        (data / name).mkdir()
        (data / name / "x.png").write_bytes(encoded(pixels(70)))
    (data / "train/license plate").mkdir()
    (data / "train/license plate/license 1.png").write_bytes(encoded(pixels(71)))
    corpus = corpus_of(data)
    assert sizes(corpus) == (9, 2, 2)
    assert "train/license plate/license 1.png" in corpus.splits["train"].ids


def test_an_unknown_layout_shows_the_nearest(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(encoded(pixels(1)))
    message = r"found a.png; expected .* cat/a.png, or metadata.csv with the lines 'file_name,label', 'a.png,cat'$"
    with pytest.raises(DataError, match=message):
        corpus_of(data)
    (data / "metadata.csv").write_text("image;text\na.png;x\n")
    message = (
        r"metadata.csv, line 1: missing column: found image, text; expected a column of files \(file_name\) and one of"
    )
    with pytest.raises(DataError, match=message):
        corpus_of(data)
    (data / "metadata.csv").unlink()
    (data / "metadata.csv").write_text("file_name,label\na.png,cat\n", "utf-16")
    with pytest.raises(DataError, match=r"metadata.csv: not UTF-8: it begins with the byte-order mark of UTF-16"):
        corpus_of(data)
    (data / "metadata.csv").unlink()
    os.symlink("nowhere", data / "metadata.csv")
    with pytest.raises(DataError, match=r"metadata.csv: unreadable file: No such file"):
        corpus_of(data)


def test_a_list_without_splits_leaves_images_in_the_split_of_their_folder(tmp_path: Path) -> None:
    good_folder(tmp_path / "data")
    names = [path.relative_to(tmp_path / "data").as_posix() for path in sorted((tmp_path / "data").rglob("*.png"))]
    before = corpus_of(tmp_path / "data")
    rows = "".join(f"{name},{name.split('/')[1]}\n" for name in names)
    (tmp_path / "data/metadata.csv").write_text(f"filename,label\n{rows}")
    corpus = corpus_of(tmp_path / "data")
    assert sizes(corpus) == sizes(before) and classes_of(corpus) == classes_of(before)


def test_a_number_is_no_position_among_classes_that_are_numbers(tmp_path: Path) -> None:
    for i, name in enumerate(("001", "002", "003")):
        (tmp_path / "data/train" / name).mkdir(parents=True)
        for j in range(2):
            (tmp_path / "data/train" / name / f"{j}.png").write_bytes(encoded(pixels(2 * i + j)))
    (tmp_path / "data/val").mkdir()
    (tmp_path / "data/val/a.png").write_bytes(encoded(pixels(9)))
    (tmp_path / "data/val.csv").write_text("file_name,label\na.png,1\n")
    with pytest.raises(DataError, match="unknown class: found the class 1, expected the name of a class's folder"):
        corpus_of(tmp_path / "data")
