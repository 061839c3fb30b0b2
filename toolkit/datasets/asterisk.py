"""``dataset=asterisk_en``, ``asterisk_es``, ``asterisk_fr``: the telephone prompts of the Asterisk PBX, one speaker
each.

Origin: "Asterisk core sounds" 1.6.1, https://downloads.asterisk.org/pub/telephony/sounds/, packaged by Debian as
``asterisk-core-sounds-{en,es,fr}-g722`` (audio) and ``asterisk-core-sounds-{en,es,fr}`` (transcripts), 1.6.1-1.
Licence: Creative Commons Attribution-ShareAlike 3.0. Voices: Allison Smith (en, es), June Wallack (fr). French
translation: Clod Patry, Kristopher Lalletti, June Wallack. Contributions: Digium, Inc., Unlimitel, BGM Informatique.
Modified here: decoded, selected, transcripts normalised, split. The tables ``asterisk_*.tsv`` beside this file
have the same licence.

====  ======  =====  ==========  ====  ==================================
lang  clips   train  validation  test  speech
====  ======  =====  ==========  ====  ==================================
en    543     431    46          66    20.5 min, 633 different words
es    463     397    23          43    22.2 min, 578 different words
fr    496     418    27          51    19.2 min, 682 different words
====  ======  =====  ==========  ====  ==================================

The tables were made once, from the lines ``name: text`` of the transcript file without comments, white space collapsed
(``raw_transcription``). Left out: tones, silence and effects (texts in brackets), prompts longer than 20 s, prompts
whose text is missing, given twice, unclear or different from the speech. ``transcription`` is lower case with only
letters, apostrophes and spaces, numbers and letters spelled as spoken, and spelling errors of the source corrected;
Spanish has no accents, like most of the source. There are no official splits. In ours no transcript is in two splits,
every word of validation and test occurs in train, and validation and test have only prompts of two words or more. The
table is compared with the fetched transcript file to detect another version.
"""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from toolkit.config.spec import option, spec
from toolkit.data.example import Example
from toolkit.data.problems import Problem
from toolkit.datasets.base import SpeechDataset, recording
from toolkit.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

VERSION = "1.6.1"
ARCHIVE = "https://downloads.asterisk.org/pub/telephony/sounds/releases"

# fetch.checksum of the table's audio files, in its order, and of the transcript file; the same for every source.
CHECKSUMS = {
    "en": "aaeaa9eb9c43801c291289d0f314a5332d3df3cd3d92b5fcd9db328d79e416db",
    "es": "53fc1604297cec47f75e6139c2b914735fb6b3a26cdd8d0df96cda28f37f0a4d",
    "fr": "1d304431823090add23df22b5f0a7ca53c787e9158b8f843eb1a0bb229e35b46",
}


@spec
class Asterisk(SpeechDataset):
    """Telephone prompts: words and sentences of one speaker, G.722 at 16 kHz."""

    language: Literal["en", "es", "fr"] = option("en", "language of the prompts: en English, es Spanish, fr French")
    path: str | None = option(
        None, "folder with the unpacked prompts (*.g722 and core-sounds-LANGUAGE.txt); null: fetched"
    )

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        root = Path(self.path) if self.path else self._fetch(cache, progress)
        transcripts = self._transcripts(root)
        for number, row in enumerate(table(self.language), 2):
            name, where = row["name"], f"asterisk_{self.language}.tsv, line {number}"
            audio = root / f"{name}.g722"
            if transcripts.get(name) != row["raw_transcription"]:
                message = f"the source's text is {transcripts.get(name)!r}, expected {row['raw_transcription']!r}"
                yield Problem("another version", where, message, fatal=True)
            elif not audio.is_file():
                yield Problem("missing file", where, f"found no {audio}")
            else:
                yield recording(name, row["split"], row["transcription"], audio, where)

    def _transcripts(self, root: Path) -> dict[str, str]:
        file = root / self._transcript_file
        if not file.is_file():
            raise DataError(f"found no {file}, expected the transcripts of the prompts beside their folders")
        texts = {}
        for line in file.read_text(encoding="utf-8-sig").splitlines():
            name, colon, text = line.partition(":")
            if colon and not line.startswith(";"):
                texts[name.strip()] = " ".join(text.split())
        return texts

    def _fetch(self, cache: Path, progress: Bars) -> Path:
        """Return the folder of the unpacked prompts, fetched once by apt-get, else (untested) by URL.

        Raises:
            DataError: neither source works, or the prompts are not of the known version.
        """
        import tempfile

        from toolkit.data.sources import fetch

        target = cache / "downloads" / f"asterisk-core-sounds-{self.language}-{VERSION}"
        if target.exists():
            return target
        with fetch.beside(target) as folder:
            with tempfile.TemporaryDirectory(dir=folder) as packages:
                files = self._archives(Path(packages), progress)
                for file in files:
                    fetch.unpack(file, folder, self._target_name)
            self._require_version(folder, [file.name for file in files])
        return target

    def _archives(self, folder: Path, progress: Bars) -> list[Path]:
        from toolkit.data.sources import fetch

        name = f"asterisk-core-sounds-{self.language}"
        try:
            return fetch.debian_packages([f"{name}-g722", name], folder, progress)
        except fetch.FetchError as error:
            apt = str(error)
        try:
            return [fetch.url(f"{ARCHIVE}/{name}-g722-{VERSION}.tar.gz", folder, progress)]
        except fetch.FetchError as error:
            hint = "connect to the network, or unpack the prompts elsewhere and set dataset.path=FOLDER"
            raise DataError([apt, str(error), hint], f"cannot fetch {name}, in either of two ways:") from None

    def _require_version(self, folder: Path, archives: list[str]) -> None:
        from toolkit.data.sources import fetch

        files = [folder / f"{row['name']}.g722" for row in table(self.language)] + [folder / self._transcript_file]
        missing = [file.name for file in files if not file.is_file()]
        found = f"{len(missing)} files missing, first {missing[0]}" if missing else fetch.checksum(files)
        if found != CHECKSUMS[self.language]:
            raise DataError(
                f"{', '.join(archives)}: the checksum of the prompts is {found}, expected {CHECKSUMS[self.language]} "
                f"(version {VERSION}): a damaged download, or an unsupported version"
            )

    @property
    def _transcript_file(self) -> str:
        return f"core-sounds-{self.language}.txt"

    def _target_name(self, member: str) -> str | None:
        """Map a member to its target: ``./usr/share/asterisk/sounds/VOICE/digits/1.g722`` to ``digits/1.g722``."""
        if member.endswith(".g722"):
            in_voice = member.partition("/sounds/")[2].partition("/")[2]
            return in_voice or member.removeprefix("./")
        is_transcript = posixpath.basename(member).removesuffix(".gz") == self._transcript_file
        return self._transcript_file if is_transcript else None


def table(language: str) -> list[dict[str, str]]:
    """Read the rows of ``asterisk_<language>.tsv``: name, split, transcription, raw_transcription."""
    file = Path(__file__).with_name(f"asterisk_{language}.tsv")
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
