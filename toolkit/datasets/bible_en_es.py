"""``dataset=bible_en_es``: the Bible in English and Spanish, verse by verse; long sentences, old Spanish.

English: World English Bible, stable text of 2020. Spanish: Reina-Valera of 1909, in the spelling of that year ("á",
"fué", "crió"), the first words of chapters in capitals. Both are in the public domain. Origin: eBible.org's modules for
SWORD, packaged by Debian as ``sword-text-web`` 426.0-1 and ``sword-text-sparv`` 2.60-1.

==========  ======  ========
split       pairs   chapters
==========  ======  ========
train       28,533  1,092
validation  1,002   41
test        1,039   39
==========  ======  ========

Footnotes, titles and markup are removed, and verses are matched by book, chapter and verse number. Left out: books that
only one Bible has, 17 chapters whose verse numbers differ between the two, verses whose Spanish has less than 0.5 or
more than 1.7 times the characters of the English, and verses of more than 60 English words. The splits are ours, by
whole chapter; ``bible_en_es.tsv`` beside this file lists every chapter that is not in train. The Bible quotes itself:
7 pairs of train are in validation too and 7 in test, such as "Yahweh spoke to Moses, saying,"; they are kept.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from toolkit.config.spec import option, spec
from toolkit.data.example import SPLITS, Example
from toolkit.data.problems import Problem
from toolkit.datasets.base import PairDataset
from toolkit.datasets.layouts import pairs
from toolkit.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

PACKAGES = ("sword-text-web", "sword-text-sparv")
VERSIONS = "sword-text-web 426.0-1 and sword-text-sparv 2.60-1"
MODULES = ("engWEB2015eb", "spaRV1909eb")
# fetch.checksum of the TSV files of the splits
CHECKSUM = "2866ca17f22200feb84d31c7bef9f4053b67c5848e4a1fe5bb4199fe9be7e6e3"
LEAST, MOST = 0.5, 1.7  # characters of a verse's Spanish per character of its English
MOST_WORDS = 60  # of a verse's English

Verses = dict[str, str]  # "Gen.1.1" -> text


@spec
class BibleEnEs(PairDataset):
    """The Bible, English and Spanish."""

    source: Literal["en", "es"] = option("en", "language to translate from: en English, es Spanish")
    target: Literal["en", "es"] = option("es", "language to translate to: en English, es Spanish")
    path: str | None = option(
        None,
        "folder with train.tsv, validation.tsv and test.tsv, or with the unpacked SWORD modules (mods.d and modules); "
        "null: fetched",
    )

    def examples(self, cache: Path, progress: Bars) -> Iterator[Example | Problem]:
        folder = Path(self.path) if self.path else None
        if folder is None:
            folder = _fetch(cache, progress)
        elif (folder / "mods.d").is_dir():
            folder = _build(folder, cache / "downloads" / "bible_en_es", progress)
        yield from pairs.read(folder, self.source, self.target, only=self.split)


def _fetch(cache: Path, progress: Bars) -> Path:
    """Return the folder with the splits, made once from Debian's packages, which apt-get fetches without root.

    Raises:
        DataError: the packages cannot be fetched, or are not of the known versions.
    """
    import tempfile

    from toolkit.data.sources import fetch

    target = cache / "downloads" / "bible_en_es"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = fetch.debian_packages(list(PACKAGES), Path(folder), progress)
        except fetch.FetchError as error:
            hint = f"connect to the network, or unpack {VERSIONS} elsewhere and set dataset.path=.../usr/share/sword"
            raise DataError([str(error), hint], "cannot fetch the texts of the Bible:") from None
        for file in files:
            fetch.unpack(file, Path(folder) / "sword", _wanted)
        return _build(Path(folder) / "sword", target, progress)


def _wanted(member: str) -> str | None:
    """Map a member of a package to its target: ``./usr/share/sword/mods.d/x.conf`` to ``mods.d/x.conf``."""
    return member.partition("/share/sword/")[2] or None


def _build(sword: Path, target: Path, progress: Bars) -> Path:
    """Make the TSV files of the splits from the two modules, unless they exist.

    Raises:
        DataError: a module is missing, or the texts are not of the known versions.
    """
    from toolkit.data.sources import fetch

    if target.exists():
        return target
    texts = [verses(sword, module, progress) for module in MODULES]
    with fetch.beside(target) as folder:
        files = []
        for split, rows in split_verses(*texts).items():
            files.append(folder / f"{split}.tsv")
            lines = ["id\ten\tes", *("\t".join(row) for row in rows)]
            files[-1].write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
        if (checksum := fetch.checksum(files)) != CHECKSUM:
            raise DataError(
                f"{sword}: the checksum of the verses is {checksum}, expected {CHECKSUM} ({VERSIONS}): a damaged "
                "download, or unsupported versions"
            )
    return target


def verses(sword: Path, module: str, progress: Bars) -> Verses:
    """Read all verses of a SWORD module that are not empty, without markup.

    Raises:
        DataError: the module is missing.
    """
    from pysword.modules import SwordModules

    modules = SwordModules(str(sword))
    if module not in modules.parse_modules():
        raise DataError(f"{sword}: found no module {module} in mods.d, expected what Debian packages as {VERSIONS}")
    bible = modules.get_bible_from_module(module)
    bible._decompressed_text = functools.lru_cache(2)(bible._decompressed_text)  # else it unpacks a book for each verse
    books = [book for part in bible.get_structure().get_books().values() for book in part]
    verse_texts = {}
    task = progress.add_task(f"reading {module}", total=len(books))
    for book in books:
        for chapter, length in enumerate(book.chapter_lengths, 1):
            texts = bible.get_iter([book.osis_name], [chapter], list(range(1, length + 1)), clean=False)
            for verse, text in enumerate(texts, 1):
                verse_texts[f"{book.osis_name}.{chapter}.{verse}"] = plain(text)
        progress.advance(task)
    return {name: text for name, text in verse_texts.items() if text}


def plain(markup: str) -> str:
    """Extract the text of a verse in OSIS markup.

    Footnotes and titles are removed with their content. A note becomes a space, since it may be the only separator of
    two words; a space that this leaves before punctuation is removed too.
    """
    text = re.sub(r"<(note|title)\b.*?</\1>", " ", markup, flags=re.DOTALL)
    text = " ".join(re.sub(r"<[^>]*>", "", text).split())
    return re.sub(" ([,.;:!?\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}])", r"\1", text)


def split_verses(english: Mapping[str, str], spanish: Mapping[str, str]) -> dict[str, list[tuple[str, str, str]]]:
    """Return ``(id, English, Spanish)`` of the verses of each split, in the order of the Spanish Bible."""
    split_of_chapter = table()
    rows: dict[str, list[tuple[str, str, str]]] = {split: [] for split in SPLITS}
    for name, text in spanish.items():
        split = split_of_chapter.get(name.rpartition(".")[0], "train")
        if split in rows and name in english and fits(english[name], text):
            rows[split].append((name, english[name], text))
    return rows


def fits(english: str, spanish: str) -> bool:
    """Return True for a verse that is short enough and whose Spanish is about as long as its English."""
    return LEAST <= len(spanish) / len(english) <= MOST and len(english.split()) <= MOST_WORDS


def table() -> dict[str, str]:
    """Read chapter -> "validation", "test" or "left out" from ``bible_en_es.tsv``; every other chapter is in train."""
    file = Path(__file__).with_name("bible_en_es.tsv")
    with file.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["chapter"]: row["split"] for row in rows}
