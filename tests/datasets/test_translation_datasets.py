"""Where parallel corpora come from: the Bible's modules and rules, and repositories of the hub."""

from __future__ import annotations

import collections
import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support import bad_pairs, hub
from tests.support.corpora import prepare
from tests.support.pair_runs import GOOD, many_pairs, nested, texts
from toolkit.data.sources import fetch
from toolkit.datasets import bible_en_es, parallel_hub
from toolkit.errors import DataError

# ---- the Bible


def osis(words: str, note: str = "") -> str:
    return " ".join(f'<w lemma="strong:H1">{word}</w>' for word in words.split()) + note


NOTE = '<note placement="foot"><reference type="annotateRef">1:1 </reference>or, <w>seed</w></note>'


@pytest.mark.parametrize(
    "markup, text",
    [
        (osis("In the beginning"), "In the beginning"),
        ("<w>God</w>" + NOTE + "<w>created</w>", "God created"),  # the note stands for the blank
        ("<w>offspring</w>." + NOTE + " <w>He</w>", "offspring. He"),
        ('<q who="Jesus">\u2018<w>Will</w> come\u2019</q>' + NOTE + " ?\u201d", "\u2018Will come\u2019?\u201d"),
        (
            '<title canonical="true" type="psalm">A Psalm by <w>David</w>.</title> <l level="1"/>Yahweh, <w>how</w>',
            "Yahweh, how",
        ),
        ('<div sID="a"/><w>one</w>,<lb/>\n <l eID="b"/> <w>two</w><div eID="a"/>', "one, two"),
        ("<note>a</note>kept<note\ntype='x'>b\n</note>", "kept"),
        (NOTE, ""),
    ],
)
def test_markup_is_removed(markup: str, text: str) -> None:
    assert bible_en_es.plain(markup) == text


@pytest.mark.parametrize(
    "english, spanish, fits",
    [
        ("a" * 10, "b" * 5, True),
        ("a" * 10, "b" * 4, False),
        ("a" * 10, "b" * 17, True),
        ("a" * 10, "b" * 18, False),
        ("a " * 60, "b " * 60, True),
        ("a " * 61, "b " * 61, False),
        ("a " * 60, "b " * 61, True),
    ],
)
def test_verses_that_are_kept(english: str, spanish: str, fits: bool) -> None:
    assert bible_en_es.fits(english.strip(), spanish.strip()) == fits


def test_chapters_have_their_splits() -> None:
    counts = collections.Counter(bible_en_es.table().values())
    assert counts == {"validation": 41, "test": 39, "left out": 17}
    english = {name: f"{name} en" for name in ("Gen.1.1", "Gen.3.2", "Exod.13.1", "Num.13.5", "Tob.1.1", "Gen.2.1")}
    spanish = {name: f"{name} es" for name in ("Gen.1.1", "Gen.3.2", "Exod.13.1", "Num.13.5", "Gen.2.2", "Gen.2.1")}
    rows = bible_en_es.split_verses(english, spanish)
    assert {split: [row[0] for row in found] for split, found in rows.items()} == {
        "train": ["Gen.1.1", "Gen.2.1"],
        "validation": ["Exod.13.1"],
        "test": ["Gen.3.2"],
    }
    assert rows["train"][0] == ("Gen.1.1", "Gen.1.1 en", "Gen.1.1 es")


def sword_module(root: Path, name: str, versification: str, verses: dict[str, str]) -> None:
    """A module in SWORD's compressed format, all verses in one block of each testament."""
    from pysword.books import BibleStructure

    (root / "mods.d").mkdir(parents=True, exist_ok=True)
    folder = root / "modules/texts/ztext" / name
    folder.mkdir(parents=True)
    (root / f"mods.d/{name}.conf").write_text(
        f"[{name}]\nDataPath=./modules/texts/ztext/{name}/\nModDrv=zText\nSourceType=OSIS\nEncoding=UTF-8\n"
        f"CompressType=ZIP\nBlockType=BOOK\nVersification={versification}\n"
    )
    structure = BibleStructure(versification.lower(), ["ot", "nt"])
    texts: dict[str, dict[int, bytes]] = {"ot": {}, "nt": {}}
    for verse, text in verses.items():
        book, chapter, number = verse.split(".")
        [(testament, [index])] = structure.ref_to_indicies([book], [int(chapter)], [int(number)]).items()
        texts[testament][index] = text.encode()
    for testament, found in texts.items():
        block, records = b"", b""
        for index in range(max(found, default=0) + 1):
            records += struct.pack("<IIH", 0, len(block), len(found.get(index, b"")))
            block += found.get(index, b"")
        packed = zlib.compress(block)
        (folder / f"{testament}.bzv").write_bytes(records)
        (folder / f"{testament}.bzs").write_bytes(struct.pack("<III", 0, len(packed), len(block)))
        (folder / f"{testament}.bzz").write_bytes(packed)


@pytest.fixture
def sword(tmp_path: Path) -> Path:
    english = {
        "Gen.1.1": "<w>In</w> the <w>beginning</w>" + NOTE + "God created",
        "Gen.3.1": osis("Now the serpent"),
        "Gen.3.2": "",
        "Exod.13.1": osis("Yahweh spoke to Moses"),
        "Num.13.1": osis("left out with its chapter"),
        "Tob.1.1": osis("not in Spanish"),
        "Matt.1.1": osis("The book of the genealogy"),
        "Matt.1.2": osis("far too long for its translation"),
    }
    spanish = {
        "Gen.1.1": osis("EN el principio crió Dios"),
        "Gen.3.1": osis("EMPERO la serpiente"),
        "Gen.3.2": osis("Y la mujer"),
        "Exod.13.1": osis("Y JEHOVÁ habló á Moisés"),
        "Num.13.1": osis("capítulo dejado fuera"),
        "Matt.1.1": osis("LIBRO de la generación"),
        "Matt.1.2": "breve",
    }
    sword_module(tmp_path / "sword", "engWEB2015eb", "NRSVA", english)
    sword_module(tmp_path / "sword", "spaRV1909eb", "KJV", spanish)
    return tmp_path / "sword"


def test_the_bible_is_made_from_sword_modules(sword: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = bible_en_es.BibleEnEs(path=str(sword))
    with pytest.raises(
        DataError, match=r"the checksum of the verses is [0-9a-f]{64}, expected .*sword-text-web 426.0-1"
    ):
        prepare(dataset, tmp_path / "cache")
    assert not any((tmp_path / "cache/downloads").iterdir())
    monkeypatch.setattr(bible_en_es, "CHECKSUM", "known")
    monkeypatch.setattr(fetch, "checksum", lambda files: "known")
    found = prepare(dataset, tmp_path / "cache")
    assert texts(found) == {
        "train": [
            ("In the beginning God created", "EN el principio crió Dios"),
            ("The book of the genealogy", "LIBRO de la generación"),
        ],
        "validation": [("Yahweh spoke to Moses", "Y JEHOVÁ habló á Moisés")],
        "test": [("Now the serpent", "EMPERO la serpiente")],
    }
    assert found.splits["train"].ids == ["Gen.1.1", "Matt.1.1"]
    made_once = prepare(bible_en_es.BibleEnEs(source="es", target="en"), tmp_path / "cache")  # nothing fetched
    assert made_once.splits["test"].input.texts == ["EMPERO la serpiente"]
    folder = tmp_path / "cache/downloads/bible_en_es"
    assert prepare(bible_en_es.BibleEnEs(path=str(folder)), tmp_path / "x").fingerprint == found.fingerprint


def test_a_missing_module_is_named(sword: Path, tmp_path: Path) -> None:
    (sword / "mods.d/spaRV1909eb.conf").unlink()
    with pytest.raises(DataError, match=r"found no module spaRV1909eb in mods.d, expected .*sword-text-sparv 2.60-1"):
        prepare(bible_en_es.BibleEnEs(path=str(sword)), tmp_path / "cache")


def test_the_bible_that_cannot_be_fetched_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise fetch.FetchError("apt-get is not on this machine")

    monkeypatch.setattr(fetch, "debian_packages", refuse)
    with pytest.raises(DataError, match=r"(?s)cannot fetch.*apt-get is not on this machine.*dataset.path=.*sword"):
        prepare(bible_en_es.BibleEnEs(), tmp_path)


def test_only_the_modules_of_a_package_are_wanted() -> None:
    assert bible_en_es._wanted("./usr/share/sword/mods.d/engWEB2015eb.conf") == "mods.d/engWEB2015eb.conf"
    assert bible_en_es._wanted("./usr/share/doc/sword-text-web/copyright") is None


# ---- the hub


def test_multi30k_from_the_hub_and_from_files(tmp_path: Path) -> None:
    parts = {name: [{"en": en, "de": de} for en, de in pairs] for name, pairs in GOOD.items()}
    source = hub.repository(tmp_path / "hub", "default", parts)
    found = prepare(parallel_hub.Multi30k(repository=str(source)), tmp_path / "cache")
    assert texts(found) == GOOD
    assert found.splits["test"].origins[1] == f"{source} test, row 1"
    back = parallel_hub.Multi30k(repository=str(source), source="de", target="en")
    assert texts(prepare(back, tmp_path / "cache"))["test"] == [pair[::-1] for pair in GOOD["test"]]
    bad_pairs.aligned(tmp_path / "files")
    for file in list((tmp_path / "files").glob("test.*")):
        (tmp_path / "files" / f"test_2017_mscoco{file.suffix}").write_bytes(file.read_bytes())
        file.rename(tmp_path / "files" / f"test_2016_flickr{file.suffix}")
    assert texts(prepare(parallel_hub.Multi30k(path=str(tmp_path / "files")), tmp_path)) == GOOD


def test_wmt14_and_iwslt_from_the_hub(tmp_path: Path) -> None:
    parts = {name: nested(pairs) for name, pairs in GOOD.items()}
    parts["train"] += [{"translation": {"de": None, "en": "nothing"}}, {"translation": {"de": "", "en": "empty"}}]
    source = hub.repository(tmp_path / "wmt", "de-en", parts)
    found = prepare(parallel_hub.WMT14(repository=str(source)), tmp_path / "cache")
    assert texts(found) == GOOD
    assert found.report.dropped == {"wrong type": 1, "empty text": 1}
    source = hub.repository(tmp_path / "iwslt", "iwslt2017-de-en", {n: nested(pairs) for n, pairs in GOOD.items()})
    dataset = parallel_hub.IWSLT(repository=str(source))
    assert texts(prepare(dataset, tmp_path / "cache"))["test"] == [pair[::-1] for pair in GOOD["test"]]


def test_tatoeba_from_the_hub_is_cut(tmp_path: Path) -> None:
    rows = [{"english": en, "non_english": de} for en, de in many_pairs()]
    source = hub.repository(tmp_path / "hub", "en-de", {"train": rows})
    dataset = parallel_hub.Tatoeba(repository=str(source), source="de", target="en", test_fraction=0.1)
    found = texts(prepare(dataset, tmp_path / "cache"))
    assert 30 <= len(found["test"]) <= 40
    assert set(itertools.chain(*found.values())) == {pair[::-1] for pair in many_pairs()}
