"""Layouts of parallel texts as they are published: names of Moses, OPUS and OpenNMT, TMX, WMT, JSON lines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support import bad_pairs
from tests.support.corpora import prepare, sizes
from tests.support.pair_runs import GOOD, languages_of, texts
from toolkit.data.split import Corpus
from toolkit.datasets.parallel_text import ParallelText
from toolkit.errors import DataError

Pairs = tuple[tuple[str, str], ...]


def aligned(pattern: str, languages: tuple[str, str] = ("en", "de")) -> Callable[[str, Pairs], Mapping[str, str]]:
    """Return a maker of line-aligned files whose names follow a pattern."""

    def files(split: str, pairs: Pairs) -> Mapping[str, str]:
        return {
            pattern.format(split=split, language=language): "".join(f"{pair[side]}\n" for pair in pairs)
            for side, language in enumerate(languages)
        }

    return files


def memory(split: str, pairs: Pairs) -> Mapping[str, str]:
    """Return a translation memory, with regions and placeholders."""
    variant = '<tuv xml:lang="{}"><seg>{}</seg></tuv>'
    units = "".join(
        f"<tu tuid='x'><note>n</note>{variant.format('en-US', _marked(en))}{variant.format('de-DE', de)}</tu>\n"
        for en, de in pairs
    )
    head = '<?xml version="1.0"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx version="1.4"><header srclang="en"/>'
    return {f"{split}.tmx": f"{head}<body>\n{units}</body></tmx>"}


def _marked(text: str) -> str:
    first, _, rest = text.partition(" ")
    return f'<bpt i="1">&lt;b&gt;</bpt>{first}<ept i="1">&lt;/b&gt;</ept> <hi>{rest}</hi><ph>{{0}}</ph>'


def nested(split: str, pairs: Pairs) -> Mapping[str, str]:
    rows = ({"id": f"{split}{i}", "translation": {"en": en, "de": de}} for i, (en, de) in enumerate(pairs))
    return {f"{split}.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}


def flat(split: str, pairs: Pairs) -> Mapping[str, str]:
    rows = ({"en": en, "de": de, "id": f"{split}{i}"} for i, (en, de) in enumerate(pairs))
    return {f"{split}.json": "".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows)}


def together(split: str, pairs: Pairs) -> Mapping[str, str]:
    """Return a test set of WMT since 2021, with two references and a system's output."""
    segments = ["".join(f'<seg id="{i}">{pair[side]}</seg>\n' for i, pair in enumerate(pairs)) for side in (0, 1)]
    document = (
        '<doc id="a.1" origlang="en"><hyp system="x" lang="de"><p><seg id="0">falsch</seg></p></hyp>'
        f'<src lang="en"><p>{segments[0]}</p></src><ref lang="de" translator="A"><p>'
        f'{segments[1]}</p></ref><ref lang="de" translator="B"><p><seg id="0">anders</seg></p></ref></doc>'
    )
    return {f"news{split}2022.en-de.all.xml": f'<?xml version="1.0"?>\n<dataset id="x">{document}</dataset>'}


LAYOUTS: dict[str, Callable[[str, Pairs], Mapping[str, str]]] = {
    "Moses": aligned("{split}.de-en.{language}"),
    "names with .txt": aligned("{split}.{language}.txt"),
    "OpenNMT": aligned("{language}-{split}.txt", ("src", "tgt")),
    "TMX": memory,
    "JSON lines": nested,
    "JSON lines of languages": flat,
    "WMT": together,
}


def write(folder: Path, files: Mapping[str, str], packed: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def beside(folder: Path) -> None:
    """Write what archives and file browsers leave beside the data."""
    for name in ("README", "README.txt", "LICENSE", "readme.de", "Tatoeba.de-en.ids", ".DS_Store", "._train.en"):
        (folder / name).write_text("x\n")
    (folder / "Tatoeba.de-en.xml").write_text('<?xml version="1.0"?>\n<cesAlign version="1.0"></cesAlign>\n')
    (folder / ".git").mkdir()


def corpus_of(folder: Path, cache: Path, **fields: str) -> Corpus:
    return prepare(ParallelText(path=str(folder), **fields), cache)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_of_a_published_layout(layout: str, packed: bool, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for split, pairs in bad_pairs.SPLITS.items():
        write(folder, LAYOUTS[layout](split, pairs), packed)
    beside(folder)
    languages = ("src", "tgt") if layout == "OpenNMT" else ("en", "de")
    corpus = corpus_of(folder, tmp_path, source=languages[0], target=languages[1])
    assert texts(corpus) == GOOD
    assert languages_of(corpus.splits["train"]) == languages
    back = corpus_of(folder, tmp_path, source=languages[1])
    assert texts(back)["test"] == [pair[::-1] for pair in GOOD["test"]]


@pytest.mark.parametrize("layout", ["Moses", "TMX", "JSON lines"])
def test_one_corpus_is_cut(layout: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", LAYOUTS[layout]("Tatoeba", bad_pairs.TRAIN))
    beside(folder)
    corpus = corpus_of(folder, tmp_path)
    assert sizes(corpus) == (4, 1, 1)
    for file in folder.glob("Tatoeba.[jt]*"):
        assert sizes(corpus_of(file, tmp_path)) == (4, 1, 1)


def test_a_corpus_beside_a_test_set_is_for_training(tmp_path: Path) -> None:
    pairs = LAYOUTS["Moses"]("nc-5k", bad_pairs.TRAIN) | LAYOUTS["Moses"]("test", GOOD["test"])
    assert sizes(corpus_of(write(tmp_path / "data", pairs), tmp_path))[2] == len(GOOD["test"])


def test_vocabularies_beside_files_of_opennmt_are_not_read(tmp_path: Path) -> None:
    sets = {split: LAYOUTS["OpenNMT"](split, GOOD[split]) for split in GOOD}
    others = {"vocab-train.src": "a\n", "vocab-train.tgt": "b\nc\n", "sample.sp.model": "x", "test_model2.src": "a\n"}
    folder = write(tmp_path / "data", {**sets["train"], **sets["validation"], **sets["test"], **others})
    with pytest.raises(DataError, match=r"found test and test_model2, .*choose by dataset\.test=NAME"):
        corpus_of(folder, tmp_path)
    assert texts(corpus_of(folder, tmp_path, test="test")) == GOOD


@pytest.mark.parametrize("layout", [bad_pairs.tables, bad_pairs.aligned])
def test_other_formats_beside_tables_and_lines_are_not_read(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path / "data")
    files = {"test.multiref.jsonl": '{"en": "x", "de": ["y"]}\n', "vocab.de.txt": "x\n", "all.tmx": "<tmx/>"}
    sets = {"newstest2014-src.en.sgm": "<srcset>", "newstest2014-ref.de.sgm": "<refset>"}
    write(tmp_path / "data", files | sets | together("test", bad_pairs.TRAIN))
    assert texts(corpus_of(tmp_path / "data", tmp_path, source="en")) == GOOD


def test_a_corpus_of_several_pairs_of_languages(tmp_path: Path) -> None:
    for pair, languages in (("de-en", ("en", "de")), ("en-fr", ("en", "fr"))):
        write(tmp_path / "data", aligned(f"corpus.{pair}.{{language}}", languages)("", bad_pairs.TRAIN))
    with pytest.raises(DataError, match=r"found the languages de, en, fr, expected two; choose by dataset.source="):
        corpus_of(tmp_path / "data", tmp_path)
    corpus = corpus_of(tmp_path / "data", tmp_path, source="en", target="fr")
    assert languages_of(corpus.splits["train"]) == ("en", "fr") and sizes(corpus) == (4, 1, 1)


def test_a_region_is_matched_if_it_is_the_only_one(tmp_path: Path) -> None:
    header = "en-US\ten-GB\tde-DE\n"
    (tmp_path / "all.tsv").write_text(header + "".join(f"{a}\t{a}\t{b}\n" for a, b in bad_pairs.TRAIN))
    message = "found the languages en-US, en-GB, de-DE, expected one of en-US, en-GB, not en"
    with pytest.raises(DataError, match=message):
        corpus_of(tmp_path / "all.tsv", tmp_path, source="en", target="de")
    corpus = corpus_of(tmp_path / "all.tsv", tmp_path, source="en-GB", target="de")
    assert languages_of(corpus.splits["train"]) == ("en-GB", "de")


def sgm(kind: str, pairs: Pairs, side: int, order: int = 1) -> str:
    segments = [f"<seg id={i}> {pair[side].replace('old', 'old &amp; wise')} </seg>" for i, pair in enumerate(pairs, 1)]
    head = '<!DOCTYPE mteval SYSTEM "mteval.dtd">\n' * (kind == "ref")
    lines = "\n".join(segments[::order])
    return f'{head}<{kind}set setid="x" srclang="any">\n<doc docid="bbc.1">\n<p>\n{lines}\n</p></doc>\n</{kind}set>\n'


def test_test_sets_of_wmt_beside_lines(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", aligned("train.de-en.{language}")("", bad_pairs.TRAIN))
    for name, pairs in (("newsdev2013", bad_pairs.VALIDATION), ("newstest2014-ende", bad_pairs.TEST)):
        write(folder, {f"{name}-src.en.sgm": sgm("src", pairs, 0), f"{name}-ref.de.sgm": sgm("ref", pairs, 1, -1)})
        # the same test set in the other direction
        write(folder, {f"{name}-src.de.sgm": "<srcset>", f"{name}-ref.en.sgm": "<refset>"})
    corpus = corpus_of(folder, tmp_path, source="en", target="de")
    good = GOOD | {"validation": [("the old & wise house", "das alte Haus"), GOOD["validation"][1]]}
    assert texts(corpus) == good
    assert corpus.splits["test"].ids[0] == "newstest2014-ende.bbc.1.1"
    for file in folder.glob("*.sgm"):
        if ("-src" in file.name) == (".de." in file.name):
            file.unlink()
    assert languages_of(corpus_of(folder, tmp_path).splits["test"]) == ("en", "de")  # that of the test sets
    shorter = sgm("ref", bad_pairs.TEST[:1], 1)
    (folder / "newstest2014-ende-ref.de.sgm").write_text(shorter)
    where = "newstest2014-ende-src.en.sgm, document bbc.1, segment 2: no translation: found it in "
    with pytest.raises(DataError, match=where):
        corpus_of(folder, tmp_path)
    (folder / "newstest2014-ende-ref.de.sgm").unlink()
    with pytest.raises(DataError, match=r"expected newstest2014-ende-ref\.de\.sgm beside it"):
        corpus_of(folder, tmp_path)


def test_an_entity_opens_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    text = memory("train", bad_pairs.TRAIN)["train.tmx"].replace(
        '<!DOCTYPE tmx SYSTEM "tmx14.dtd">', f'<!DOCTYPE tmx [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]>'
    )
    file = tmp_path / "all.tmx"
    file.write_text(text.replace("das alte", "&x; das"))
    examples = prepare(ParallelText(path=str(file)), tmp_path).splits
    assert not any("secret" in text for split in examples.values() for text in split.target.texts)


# name -> files, pieces of the message
UNKNOWN: dict[str, tuple[Mapping[str, str], tuple[str, ...]]] = {
    "CSV": (
        {"train.csv": "en,de\n", "test.csv": "en,de\n"},
        ("no pairs: found test.csv, train.csv; the nearest layout is train.tsv", "'en<TAB>de', 'a red house<TAB>ein"),
    ),
    "texts": (
        {"english.txt": "a\n", "german.txt": "b\n"},
        ("found english.txt, german.txt", "train.en and train.de with a sentence in each line: 'a red house', 'a gr"),
    ),
    "JSON": ({"pairs.json": "[]"}, ("found pairs.json", 'train.jsonl with lines such as \'{"en": "a red house"')),
    "archive": ({"de-en.zip": ""}, ("found de-en.zip", "unpack de-en.zip first")),
    "one language": ({"corpus.de": "x\n"}, ("found corpus.de; the nearest layout is train.en and train.de",)),
    "two corpora": (
        {name: "x\n" for name in ("a.de-en.de", "a.de-en.en", "b.de", "b.en")},
        ("a.de-en: unknown split: found 'a.de-en', expected train, ", "; to train on several corpora, join them"),
    ),
    "no second side": (
        {"src-train.txt": "x\n", "tgt-train.txt": "y\n", "src-val.txt": "x\n"},
        ("tgt-val.txt: missing file: found src-val.txt, expected tgt-val.txt beside it",),
    ),
    "bad XML": (
        {"train.tmx": "<tmx><body><tu>"},
        ("train.tmx: damaged file: not valid XML: no element found: line 1",),
    ),
    "no units": ({"train.tmx": "<tmx/>"}, ("train.tmx: empty file: found no text in two languages",)),
    "no JSON": ({"train.jsonl": "en\tde\n"}, ("train.jsonl, line 1: bad line: not valid JSON",)),
    "no object": ({"train.jsonl": "[1]\n"}, ("train.jsonl, line 1: bad line: found a JSON list, expected an object",)),
    "one key": ({"train.jsonl": '{"text": "x"}\n'}, ("line 1: unknown languages: found the fields text",)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_layouts_are_refused_by_one_line(name: str, tmp_path: Path) -> None:
    files, fragments = UNKNOWN[name]
    with pytest.raises(DataError) as caught:
        corpus_of(write(tmp_path / "data", files), tmp_path)
    message = caught.value.problems[0]
    assert all(fragment in message for fragment in fragments), message
    assert "\n" not in message and "on_bad" not in str(caught.value)


def test_folders_below_are_asked_for(tmp_path: Path) -> None:
    bad_pairs.aligned(tmp_path / "data/de-en")
    (tmp_path / "data/.cache").mkdir()
    with pytest.raises(DataError, match=r"found de-en/; the nearest .*; is dataset.path=.*data/de-en meant\?"):
        corpus_of(tmp_path / "data", tmp_path)
    message = r"found a file of one language \(en\), expected the folder .* too: dataset.path=.*/data/de-en"
    with pytest.raises(DataError, match=message):
        corpus_of(tmp_path / "data/de-en/train.en", tmp_path)


@pytest.mark.parametrize(
    "row, message",
    [
        ({"en": "a house"}, r"line 7: no translation: found en \(en: 'a house'\), expected de too"),
        ({"en": "a house", "de": None}, "line 7: empty text: de: found no text; en: 'a house'"),
        ({"en": "a house", "de": ["ein Haus"]}, r"line 7: wrong type: de is \['ein Haus'\] \(list\), expected text"),
    ],
)
def test_a_bad_record_shows_the_other_side(row: dict[str, object], message: str, tmp_path: Path) -> None:
    lines = flat("train", bad_pairs.TRAIN)["train.json"].replace("\n\n", "\n") + json.dumps(row) + "\n"
    (tmp_path / "all.jsonl").write_text(lines)
    with pytest.raises(DataError, match=message):
        corpus_of(tmp_path / "all.jsonl", tmp_path)
    corpus = prepare(ParallelText(path=str(tmp_path / "all.jsonl"), on_bad="drop"), tmp_path)
    assert sum(corpus.report.dropped.values()) == 1


def test_links_to_nothing_and_names_that_are_no_text(tmp_path: Path) -> None:
    bad_pairs.aligned(tmp_path / "data")
    (tmp_path / "data/val.de").unlink()
    (tmp_path / "data/val.de").symlink_to("../gone.de")
    with pytest.raises(DataError, match=r"val.de: dangling link: a link to ../gone.de, where nothing is"):
        corpus_of(tmp_path / "data", tmp_path)
    (tmp_path / "data/val.de").rename(tmp_path / "data" / b"val\xff.de".decode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"bad name: found 'val.udcff.de', expected a name in UTF-8"):
        corpus_of(tmp_path / "data", tmp_path)
    with pytest.raises(DataError, match="missing folder"):
        corpus_of(tmp_path / ("long" * 100), tmp_path)
