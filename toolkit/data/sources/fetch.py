"""Download of archives, and safe unpacking."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import os
import posixpath
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from toolkit.errors import UNWRITABLE, DataError, disk_error

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

# No corpus fetched here is larger when unpacked; an archive that is may be an attack on the disk.
LARGEST = 1 << 30  # bytes


class FetchError(Exception):
    """Error of one source of a file; another source may work."""


def debian_packages(packages: list[str], folder: Path, progress: Bars) -> list[Path]:
    """Download Debian packages by apt-get, without root, from the package sources of the machine.

    If the machine's package lists are missing or too old, new ones are fetched into ``folder``.

    Args:
        packages: names of the packages.
        folder: an existing folder for the files.
        progress: a running ``rich.progress.Progress``.

    Returns:
        The ``.deb`` files, in the order of the names.

    Raises:
        FetchError: no apt-get, no network, or a package is not among the machine's sources.
    """
    if shutil.which("apt-get") is None:
        raise FetchError("apt-get is not on this machine")
    lists = folder / "lists"
    private = [f"Dir::State::lists={lists}", f"Dir::Cache={folder / 'cache'}", "Debug::NoLocking=true"]
    task = progress.add_task(f"apt-get download {packages[0]}", total=len(packages))
    output = ""
    for options, refresh in (([], False), (private, True)):
        if refresh:
            (lists / "partial").mkdir(parents=True, exist_ok=True)
            (folder / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
            output += _apt(["update"], [*options, "Acquire::Languages=none"], folder)
        output += _apt(["download", *packages], options, folder)
        files = [file for package in packages for file in folder.glob(f"{package}_*.deb")]
        if len(files) == len(packages):
            progress.update(task, completed=len(files))
            return files
    raise FetchError(f"apt-get could not download {', '.join(packages)}: {output or 'it gave no reason'}")


def _apt(arguments: list[str], options: list[str], folder: Path) -> str:
    command = ["apt-get", "-q", *(word for option in options for word in ("-o", option)), *arguments]
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return (
        ""
        if process.returncode == 0
        else " ".join(line for line in process.stderr.splitlines() if line.startswith("E:"))
    )


def url(address: str, folder: Path, progress: Bars) -> Path:
    """Download a file over HTTPS.

    Raises:
        FetchError: it cannot be reached.
    """
    target = folder / PurePosixPath(address).name
    try:
        with urllib.request.urlopen(address, timeout=60) as response, target.open("wb") as out:
            task = progress.add_task(
                f"downloading {target.name}", total=int(response.headers.get("Content-Length") or 0)
            )
            while block := response.read(1 << 20):
                out.write(block)
                progress.advance(task, len(block))
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise FetchError(f"{address}: {getattr(error, 'reason', error)}") from error
    return target


def checksum(files: Iterable[Path]) -> str:
    """Return the SHA-256 of the names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def unpack(file: Path, target: Path, wanted: Callable[[str], str | None]) -> int:
    """Unpack selected regular files of a ``.deb`` or ``.tar.*`` file; never a link or a device.

    Args:
        file: the archive.
        target: an existing folder.
        wanted: member name -> name below ``target``, or None to skip it.

    Returns:
        The number of files written.

    Raises:
        DataError: damaged, too large, or with a member whose name or kind could point outside ``target``.
        RunError: the disk is full or not writable.
    """
    count, budget = 0, LARGEST
    try:
        with file.open("rb") as raw, tarfile.open(fileobj=_tar_stream(raw, file.name)) as archive:
            for member in archive:
                _require_safe(member, file.name)
                name = wanted(member.name)
                if name is None or not member.isfile():
                    continue
                budget -= member.size
                if budget < 0:
                    raise DataError(
                        f"{file.name}: found more than {LARGEST:,} bytes when unpacked, expected at most that"
                    )
                stream = archive.extractfile(member)
                assert stream is not None  # a regular file
                out, data = target / name, stream.read()
                data = gunzip(data, file.name) if member.name.endswith(".gz") else data
                try:
                    out.parent.mkdir(parents=True, exist_ok=True)
                    out.write_bytes(data)
                except OSError as error:
                    if error.errno in UNWRITABLE:
                        raise disk_error(error, out, len(data)) from error
                    raise  # two members of one name, one of which is a folder
                count += 1
    except (tarfile.TarError, zlib.error, lzma.LZMAError, ValueError, EOFError, OSError) as error:
        raise DataError(f"{file.name}: damaged archive ({error}); remove it and try again") from error
    return count


def gunzip(data: bytes, what: str) -> bytes:
    """Decompress gzipped data of at most LARGEST bytes.

    Raises:
        DataError: it is larger.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        out = stream.read(LARGEST + 1)
    if len(out) > LARGEST:
        raise DataError(f"{what}: found more than {LARGEST:,} bytes when unpacked, expected at most that")
    return out


def _require_safe(member: tarfile.TarInfo, archive: str) -> None:
    targets = [member.name]
    if member.issym():  # relative to its folder
        targets.append(posixpath.join(posixpath.dirname(member.name), member.linkname))
    elif member.islnk():  # relative to the root of the archive
        targets.append(member.linkname)
    for target in targets:
        if target.startswith("/") or posixpath.normpath(target).split("/")[0] == ".." or ".." in member.name.split("/"):
            raise DataError(f"{archive}: the member {member.name!r} points outside the archive ({target!r}), refused")


def _tar_stream(raw: BinaryIO, name: str) -> BinaryIO:
    """Return the tar file inside; in a Debian package, ``data.tar.*`` in an ``ar`` archive (deb(5))."""
    if not name.endswith(".deb"):
        return raw
    if raw.read(8) != b"!<arch>\n":
        raise DataError(f"{name}: not a Debian package")
    while len(header := raw.read(60)) == 60:
        size = int(header[48:58])
        if size < 0:  # seeking back would loop for ever
            raise ValueError(f"a member of {size} bytes")
        if header[:16].strip().rstrip(b"/").startswith(b"data.tar"):
            return io.BytesIO(raw.read(size))
        raw.seek(size + size % 2, os.SEEK_CUR)
    raise DataError(f"{name}: a Debian package without data.tar")


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Create a folder that becomes ``target`` when the block ends without an error, and is removed otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield folder
        try:
            folder.rename(target)
        except OSError:
            # If two runs fetch at the same time, the first one wins; the other's copy is the same.
            if not target.exists():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
