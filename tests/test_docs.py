"""The docs: links resolve, and the files, commands, options and fields that they name exist."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import toolkit
from toolkit.config.schema import Run, Sweep
from toolkit.config.source import GROUPS, PACKAGES

ROOT = Path(toolkit.__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
SOURCES = ("toolkit/**/*.py", "tests/**/*.py", "benchmarks/*.py", "scripts/*", "conf/**/*.yaml", "recipes/*.yaml")
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
INDENTED = re.compile(r"^(?: {4}.*\n)+", re.M)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"(?<![\w/.~-])((?:toolkit|tests|scripts|benchmarks|conf|docs|recipes)/[\w./-]*\w)(?!\*)")
SUFFIXES = {"safetensors", "csv", "html", "json", "png"}  # of files whose stem is also a group
PLACEHOLDER = re.compile(r"\bx\.\w+$|NAME")  # of a file that a reader adds


def prose(text: str) -> str:
    """The text without blocks of code."""
    return INDENTED.sub("", FENCED.sub("", text))


def code(text: str) -> str:
    """Blocks and spans of code, joined by lines."""
    blocks = FENCED.findall(text) + INDENTED.findall(FENCED.sub("", text))
    return "\n".join(blocks + SPAN.findall(prose(text))).replace("\\|", "|")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Yield the relative links of a page whose file or anchor is missing."""
    for link in LINK.findall(prose(text)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve()
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8") if path else text)):
            yield link


def missing_files(text: str) -> Iterator[str]:
    """Yield the files of the repository that a text names and that do not exist."""
    for name in FILE.findall(text):
        if not PLACEHOLDER.search(name) and not (ROOT / name).exists():
            yield name


@functools.cache
def known_fields(group: str) -> set[str]:
    """Fields of all specs of a group."""
    names = set()
    for file in (ROOT / "conf" / group).glob("*.yaml"):
        if target := (yaml.safe_load(file.read_text("utf-8")) or {}).get("_target_"):
            module, _, name = target.rpartition(".")
            names |= {field.name for field in fields(getattr(importlib.import_module(module), name))}
    return names


def unknown_overrides(text: str) -> Iterator[str]:
    """Yield ``GROUP.FIELD`` and ``GROUP=OPTION`` of a text's code that do not exist."""
    shown = code(text)
    for group, field in re.findall(rf"(?<![\w./-])({'|'.join(PACKAGES)})\.([a-z_]+)\b(?!\.)", shown):
        if field not in known_fields(group) | SUFFIXES:
            yield f"{group}.{field}"
    for group, values in re.findall(rf"(?<![\w./-])({'|'.join(GROUPS)})=([a-z][\w,|]*)", shown):
        folder = ROOT / ("recipes" if group == "recipe" else f"conf/{group}")
        options = {file.stem for file in folder.glob("*.yaml")}
        yield from (f"{group}={value}" for value in re.split(r"[,|]", values) if value not in options)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_resolve(page):
    assert list(broken_links(page, page.read_text("utf-8"))) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_exist(page):
    assert list(missing_files(page.read_text("utf-8"))) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_overrides_exist(page):
    assert list(unknown_overrides(page.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "check, text, expected",
    [
        (lambda text: broken_links(ROOT / "README.md", text), "[a](docs/none.md) [b](LICENSE)", ["docs/none.md"]),
        (lambda text: broken_links(ROOT / "README.md", text), "# One two\n[a](#one-two) [b](#three)", ["#three"]),
        (missing_files, "`toolkit/none.py`, `toolkit/run.py`, `toolkit/datasets/x.py`", ["toolkit/none.py"]),
        (unknown_overrides, "`trainer.nothing=1 trainer.devices=2`", ["trainer.nothing"]),
        (unknown_overrides, "    -m recipe=asr,nothing backend=torch,jax\n", ["recipe=nothing", "backend=jax"]),
    ],
)
def test_what_is_missing_is_found(check, text, expected):
    assert list(check(text)) == expected


def test_every_page_is_linked_from_the_readme():
    readme = ROOT / "README.md"
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(readme.read_text("utf-8"))}
    assert [page for page in PAGES if page != readme and page not in linked] == []


def test_every_field_of_a_run_and_a_sweep_is_described():
    text = (ROOT / "docs/guide/training.md").read_text("utf-8")
    assert [field.name for kind in (Run, Sweep) for field in fields(kind) if f"{field.name}=" not in text] == []


def test_the_scores_of_the_readme_are_those_of_the_recipes():
    text, page, rows = (ROOT / "README.md").read_text("utf-8"), "", 0
    for row in re.findall(r"^\| .* \|$", text[: text.index("## Python")], re.M):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if link := LINK.search(cells[0]):
            page = (ROOT / link[1]).read_text("utf-8")
        if page:
            measured = page[page.index("## Measured") : page.index("## The twins")]
            for backend, score in zip(("torch", "tf"), cells[-2:], strict=True):
                assert re.search(rf"^\| {backend} \|.* {re.escape(score)} \|", measured, re.M), row
            rows += 1
    assert rows >= len(list((ROOT / "recipes").glob("*.yaml")))


def test_modules_that_the_docs_run_exist():
    named = {name for page in PAGES for name in re.findall(r"-m ((?:toolkit|tests)[.\w]*)", page.read_text("utf-8"))}
    assert "toolkit.run" in named
    assert [name for name in named if importlib.util.find_spec(name) is None] == []


def verbs() -> set[str]:
    """Commands that the docs name, as ``python -m toolkit VERB`` or ``toolkit VERB``."""
    found = {verb for page in PAGES for verb in re.findall(r"\btoolkit ([a-z]+)\b", code(page.read_text("utf-8")))}
    assert {"run", "predict", "certify", "sweep"} <= found
    return found


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_commands_exist(verb):
    command = [sys.executable, "-m", "toolkit", verb, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0 and re.match(rf"usage: .*toolkit[ .]{verb}\b", done.stdout), done.stdout + done.stderr


def test_pages_that_the_code_names_exist():
    files = [file for pattern in SOURCES for file in ROOT.glob(pattern) if file != Path(__file__) and file.is_file()]
    named = {(file, name) for file in files for name in re.findall(r"\bdocs/[\w/]+\.md", file.read_text("utf-8"))}
    assert named
    lost = sorted((name, file.relative_to(ROOT).as_posix()) for file, name in named if not (ROOT / name).is_file())
    assert lost == []
