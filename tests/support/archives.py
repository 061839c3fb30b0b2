"""Archives and Debian packages of files that the tests give."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def debian_package(path: Path, files: dict[str, bytes]) -> Path:
    """A package as dpkg-deb makes it: an ar archive with the files in data.tar.xz (deb(5))."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(b"!<arch>\n")
    with path.open("ab") as out:
        for name, content in (("debian-binary", b"2.0"), ("control.tar.xz", b"?"), ("data.tar.xz", stream.getvalue())):
            out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content)
            out.write(b"\n" * (len(content) % 2))
    return path


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info
