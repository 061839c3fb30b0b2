"""Marked-up files of parallel texts: translation memories (TMX) and the test sets of WMT.

No file can make the reader open another one: external entities are not resolved.
"""

from __future__ import annotations

import gzip
import html
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from toolkit.data.problems import Problem
from toolkit.data.sources.lines import read_lines, unreadable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

SNIFFED = 4096  # bytes that are searched for the root of an XML file

# Elements of a TMX segment whose content is the formatting of another program. The text of <hi> is text.
PLACEHOLDERS = {"bpt", "ept", "it", "ph", "ut"}
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# Tags of WMT's test sets, which are not always well-formed
TAG = re.compile(r"<(/?)(doc|src|ref|hyp|tstset|seg)\b([^>]*)>", re.IGNORECASE)
OUTPUT = "output"  # instead of a language: of a system, so it is no reference
ATTRIBUTE = re.compile(r"""([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")


@dataclass(frozen=True)
class Unit:
    """A text in several languages: its place in messages, its id, and language -> text."""

    where: str
    id: str
    texts: Mapping[str, object]


def root_of(file: Path) -> str:
    """Return the name of the first element of an XML or SGML file, in small letters; empty if there is none."""
    try:
        with _opened(file) as stream:
            head = stream.read(SNIFFED)
    except (OSError, EOFError, zlib.error):
        return ""
    root = re.search(rb"<([A-Za-z]\w*)", head.replace(b"\0", b""))  # of UTF-16 too
    return root[1].decode().lower() if root else ""


# --- translation memories --------------------------------------------------------------------------------------------


def memory(file: Path, split: str) -> Iterator[Unit | Problem]:
    """Yield the units of a TMX file, which is read as a stream."""
    from xml.etree import ElementTree

    try:
        with _opened(file) as stream:
            body: Element | None = None
            number = 0
            for event, element in ElementTree.iterparse(stream, ("start", "end")):
                tag = _local(element)
                if event == "start":
                    body = element if tag == "body" else body
                elif tag == "tu":
                    number += 1
                    yield Unit(f"{file.name}, unit {number}", f"{split}.{number}", _variants(element))
                    if body is not None:
                        body.clear()
    except ElementTree.ParseError as error:
        yield Problem("damaged file", file.name, f"not valid XML: {error}; expected TMX", fatal=True)
    except (OSError, EOFError, zlib.error) as error:
        yield unreadable(file.name, error)


def _variants(unit: Element) -> dict[str, object]:
    """Return language -> text of a ``<tu>``; the first of several texts in a language."""
    texts: dict[str, object] = {}
    for variant in unit:
        if _local(variant) == "tuv":
            segment = next((child for child in variant if _local(child) == "seg"), None)
            language = variant.get(XML_LANG) or variant.get("lang") or ""
            texts.setdefault(language, "" if segment is None else _text(segment))
    return texts


def _text(element: Element) -> str:
    """Return the text of a segment without its placeholders."""
    parts = [element.text or ""]
    for child in element:
        parts += ["" if _local(child) in PLACEHOLDERS else _text(child), child.tail or ""]
    return "".join(parts)


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2].lower()


# --- test sets of WMT ------------------------------------------------------------------------------------------------


def test_set(file: Path, split: str) -> Iterator[Unit | Problem]:
    """Yield the segments of WMT's newer XML, which has the source and references of a document together."""
    segments = segments_of(file)
    if isinstance(segments, Problem):
        yield segments
        return
    units: dict[tuple[str, str], dict[str, object]] = {}
    for language, document, number, text in segments:
        if language:
            units.setdefault((document, number), {}).setdefault(language, text)  # of the first reference
    for (document, number), texts in units.items():
        yield Unit(place_of(file.name, document, number), f"{split}.{document}.{number}", texts)


def segments_of(file: Path) -> list[tuple[str, str, str, str]] | Problem:
    """Return language (empty: not stated), document, number and text of the segments of an SGML or XML file."""
    lines = read_lines(file, file.name)
    if isinstance(lines, Problem):
        return lines
    content = "\n".join(lines)
    segments: list[tuple[str, str, str, str]] = []
    language = document = number = ""
    start = 0
    for tag in TAG.finditer(content):
        closing, name, values = bool(tag[1]), tag[2].lower(), _attributes(tag[3])
        if name == "seg" and not closing:
            number, start = values.get("id", str(len(segments) + 1)), tag.end()
        elif name == "seg" and language != OUTPUT:
            segments.append((language, document, number, _plain(content[start : tag.start()])))
        elif name == "doc" and not closing:
            document = values.get("docid") or values.get("id", "")
        elif name in ("src", "ref"):
            language = "" if closing else values.get("lang", "")
        elif name in ("hyp", "tstset"):
            language = "" if closing else OUTPUT
    if not segments:
        return Problem("empty file", file.name, "found no <seg>, expected the segments of a test set", fatal=True)
    return segments


def place_of(name: str, document: str, number: str) -> str:
    """Return the place of a segment in messages."""
    return f"{name}, document {document}, segment {number}"


def _attributes(text: str) -> dict[str, str]:
    values = {match[1].lower(): match[2] or match[3] or match[4] or "" for match in ATTRIBUTE.finditer(text)}
    return {name: _plain(value) for name, value in values.items()}


def _plain(text: str) -> str:
    """Return a text without tags, and with entities as characters."""
    return re.sub(r"&#?\w+;", lambda entity: html.unescape(entity[0]), re.sub(r"</?[A-Za-z][^<>]*>", "", text))


def _opened(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file)) if file.suffix == ".gz" else file.open("rb")
