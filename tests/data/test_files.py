"""A user's inputs that are files and folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.data.columns.column import Question
from toolkit.data.files import files
from toolkit.data.problems import Problem


def asked(*inputs: str) -> list[str]:
    """The files, or the kinds of the problems."""
    listing = files(inputs, "recording", {".wav", ".flac"})
    return [item.origin if isinstance(item, Question) else item.kind for item in listing]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.wav", "a/2.WAV", "a/1.flac", ".git/c.wav", ".d.wav", "README.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    return tmp_path / "in"


def test_a_folder_gives_its_visible_files_by_name(folder: Path) -> None:
    (folder / "a" / "up").symlink_to(folder)  # a loop
    (folder / "z").symlink_to(folder / "a")
    names = ["a/1.flac", "a/2.WAV", "b.wav", "z/1.flac", "z/2.WAV"]
    assert asked(str(folder)) == [f"{folder}/{name}" for name in names]
    assert asked(str(folder / "b.wav")) == [f"{folder}/b.wav"]


def test_a_name_that_gives_no_file_is_one_problem(folder: Path) -> None:
    (folder / "dangling.wav").symlink_to(folder / "gone")
    (folder / "empty").mkdir()
    cases = {
        "a\0.wav": "no such file",
        "gone.wav": "no such file",
        str(folder / "dangling.wav"): "no such file",
        str(folder / "b.wav" / "c.wav"): "no such file",
        "x" * 300: "unreadable",
        "": "no name",
        str(folder / "empty"): "no file",
        "/dev/null": "not a file",
    }
    assert asked(*cases) == list(cases.values())
    (problem,) = files([str(folder / "dangling.wav")], "recording", {".wav"})
    assert isinstance(problem, Problem) and f"found a link to {folder / 'gone'}, where nothing is" in problem.message


def test_a_folder_that_cannot_be_read_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def denied(path: Path) -> object:
        if path == folder / "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert asked(str(folder)) == [f"{folder}/b.wav", "unreadable"]


def test_a_tilde_is_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (item,) = files(["~/b.wav"], "recording", {".wav"})
    assert isinstance(item, Question) and item.origin == "~/b.wav" and item.value.content == folder / "b.wav"  # type: ignore[attr-defined]
