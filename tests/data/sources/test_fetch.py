"""Downloads and archives: what is fetched, unpacked and refused."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from pathlib import Path

import pytest

from tests.support.archives import member, tar
from tests.support.corpora import Silent
from toolkit.data.sources import fetch
from toolkit.errors import DataError


def test_empty_package_lists_are_fetched_without_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for apt-get that knows packages only after an update into its own lists."""
    script = tmp_path / "bin/apt-get"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/sh\nlists=/nowhere\n"
        'for word in "$@"; do case $word in Dir::State::lists=*) lists=${word#*=};; esac; done\n'
        'case " $* " in\n*" update "*) touch "$lists/known";;\n'
        '*) [ -f "$lists/known" ] || { echo "E: Unable to locate package" >&2; exit 100; }\n'
        "touch a_1_all.deb b_1_all.deb;;\n"
        "esac\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    target = tmp_path / "target"
    target.mkdir()
    assert [file.name for file in fetch.debian_packages(["a", "b"], target, Silent())] == ["a_1_all.deb", "b_1_all.deb"]
    with pytest.raises(fetch.FetchError, match="could not download c"):
        fetch.debian_packages(["c"], target, Silent())


@pytest.mark.parametrize(
    "bad",
    [
        member("../a.g722"),
        member("/tmp/a.g722"),
        member("sounds/v/../../a.g722"),
        member("a.g722", tarfile.SYMTYPE, "/etc/passwd"),
        member("deep/a.g722", tarfile.SYMTYPE, "../../secret"),
        member("a.g722", tarfile.LNKTYPE, "../secret"),
    ],
    ids=lambda info: f"{info.name} -> {info.linkname}",
)
def test_archives_cannot_leave_their_folder(bad: tarfile.TarInfo, tmp_path: Path) -> None:
    file = tar(tmp_path / "a.tar.gz", (member("good.g722"), b"x"), (bad, b""))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="points outside the archive"):
        fetch.unpack(file, tmp_path / "out", lambda name: name)
    assert {p.name for p in tmp_path.iterdir()} == {"a.tar.gz", "out"}


def test_links_and_devices_inside_an_archive_are_not_made(tmp_path: Path) -> None:
    file = tar(
        tmp_path / "a.tar.gz",
        (member("good.g722"), b"x"),
        (member("link.g722", tarfile.SYMTYPE, "good.g722"), b""),
        (member("pipe.g722", tarfile.FIFOTYPE), b""),
    )
    (tmp_path / "out").mkdir()
    assert fetch.unpack(file, tmp_path / "out", lambda name: name) == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.g722"]


@pytest.mark.parametrize("name", ["bomb.g722", "bomb.txt.gz"])
def test_archive_bombs_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(fetch, "LARGEST", 10_000)
    content = gzip.compress(bytes(20_000)) if name.endswith(".gz") else bytes(20_000)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="more than 10,000 bytes"):
        fetch.unpack(tar(tmp_path / "a.tar.gz", (member(name), content)), tmp_path / "out", lambda name: name)


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    good = tar(tmp_path / "a.tar.gz", (member("good.g722"), os.urandom(5000)))
    (tmp_path / "cut.tar.gz").write_bytes(good.read_bytes()[:3000])
    (tmp_path / "no.deb").write_bytes(b"<html>")
    for name in ("cut.tar.gz", "no.deb"):
        with pytest.raises(DataError, match=name):
            fetch.unpack(tmp_path / name, tmp_path, lambda name: name)
