"""Archives that mean harm, beside those of ``tests/datasets``: devices, ways through links, any damage."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import random
import tarfile
from pathlib import Path

import pytest

from toolkit.data.sources import fetch
from toolkit.errors import DataError, RunError

PACKED = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}


def member(name, kind=tarfile.REGTYPE, link="", content=b""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def tar(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def debian(data, name=b"data.tar.xz", size=None):
    header = name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"100644".ljust(8)
    return b"!<arch>\n" + header + (size or str(len(data)).encode()).ljust(10) + b"`\n" + data


def unpack(tmp_path, blob, name="a.tar.gz"):
    """What is below the folder afterwards."""
    (tmp_path / name).write_bytes(blob)
    (tmp_path / "out").mkdir(exist_ok=True)
    fetch.unpack(tmp_path / name, tmp_path / "out", lambda name: name)
    return sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"V"])
def test_nothing_but_files_is_made(tmp_path, kind):
    found = unpack(tmp_path, gzip.compress(tar(member("good", content=b"x"), member("device", kind))))
    assert found in (["good"], ["device", "good"])  # a contiguous file is a file
    assert all(p.is_file() for p in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_no_way_leads_through_a_link(tmp_path, kind):
    """A link to a folder within, and then a file below it: the link is not made, so the file is where it says."""
    members = member("door", kind, "room"), member("door/key", content=b"x")
    assert unpack(tmp_path, gzip.compress(tar(*members))) == ["door", "door/key"]
    assert not (tmp_path / "out" / "door").is_symlink()


@pytest.mark.parametrize("name", ["..", "a/../../b", "/b", "//b", "./../b", "a/..", "../out-of-reach/b"])
@pytest.mark.parametrize("packing", PACKED)
def test_no_member_leaves_the_folder(tmp_path, packing, name):
    with pytest.raises(DataError, match="points outside the archive"):
        unpack(tmp_path, PACKED[packing](tar(member(name, content=b"x"))))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "out"]


def test_without_the_check_of_members_one_is_seen_to_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_require_safe", lambda *_: None)
    unpack(tmp_path, gzip.compress(tar(member("../b", content=b"x"))))
    assert (tmp_path / "b").exists()


@pytest.mark.parametrize("packing", PACKED)
def test_a_bomb_is_refused_before_it_is_on_the_disk(tmp_path, monkeypatch, packing):
    monkeypatch.setattr(fetch, "LARGEST", 100_000)
    blob = PACKED[packing](tar(*(member(f"{i}", content=bytes(30_000)) for i in range(9))))
    with pytest.raises(DataError, match="more than 100,000 bytes when unpacked"):
        unpack(tmp_path, blob)
    assert sum(p.stat().st_size for p in (tmp_path / "out").iterdir()) <= 100_000


def test_without_its_bound_a_bomb_is_seen_to_go_off(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "LARGEST", 1 << 40)
    assert len(unpack(tmp_path, gzip.compress(tar(*(member(f"{i}", content=bytes(30_000)) for i in range(9)))))) == 9


def test_a_member_that_claims_more_than_there_is_is_damaged(tmp_path):
    info, content = member("a", content=b"x" * 100)
    blob = bytearray(tar((info, content)))
    blob[124:136] = b"77777777777\0"
    with pytest.raises(DataError):
        unpack(tmp_path, gzip.compress(bytes(blob)))


@pytest.mark.parametrize("size", [b"abc", b"-1", b"9999999999", b""])
def test_a_debian_package_with_a_header_that_lies_is_refused(tmp_path, size):
    data = lzma.compress(tar(member("a", content=b"x")))
    try:
        assert unpack(tmp_path, debian(data, size=size or b" "), "a.deb") == ["a"]
    except DataError as error:
        assert "a.deb" in str(error)
    assert unpack(tmp_path, debian(data), "b.deb") == ["a"]


def test_a_debian_package_that_leads_back_to_its_beginning_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.deb"):
        unpack(tmp_path, debian(b"", b"control.tar.xz", b"-60"), "a.deb")


@pytest.mark.parametrize("packing", [*PACKED, "deb"])
def test_whatever_is_damaged_in_an_archive_it_is_refused_by_name_or_does_no_harm(tmp_path, packing):
    inner = tar(member("a", content=random.Random(0).randbytes(900)), member("b", content=b"text" * 99))
    whole = debian(lzma.compress(inner)) if packing == "deb" else PACKED[packing](inner)
    name, draw, refused = f"a.{'deb' if packing == 'deb' else 'tar.' + packing}", random.Random(1), 0
    for trial in range(150):
        place = draw.randrange(len(whole))
        blob = whole[:place] if trial % 3 == 0 else whole[:place] + draw.randbytes(2) + whole[place + 2 :]
        try:
            found = unpack(tmp_path, blob, name)
        except DataError as error:
            assert name in str(error)
            refused += 1
        else:
            assert len(found) <= 2
        assert sorted(p.name for p in tmp_path.iterdir()) == [name, "out"]
    assert refused > 50


def test_a_full_disk_is_no_damaged_archive(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    blob = gzip.compress(tar(member("a", content=b"x")))
    (tmp_path / "a.tar.gz").write_bytes(blob)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"a: No space left on device; needs 1 bytes, .* bytes are free"):
        fetch.unpack(tmp_path / "a.tar.gz", tmp_path, lambda name: name)
