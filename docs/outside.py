"""Makes the site hold the files that its pages link outside of `docs/`: other documents, code, data (MkDocs hook).

In the repository a link leads to the file; on the site it leads to a page or copy of it, below `source/`.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOME = "source"  # where files from outside lie on the site
ALWAYS = ("CHANGELOG.md", "benchmarks/README.md", "benchmarks/frontier/README.md", "training/README.md")
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(\))")
CODE = {".py": "python", ".json": "json", ".toml": "toml", ".yml": "yaml"}  # what is shown as a page
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n"


@cache
def place(path: Path) -> str:
    """Returns where a file of the repository lies on the site, from its root."""
    if path.is_relative_to(DOCS) and path.suffix != ".py":
        return path.relative_to(DOCS).as_posix()
    own = f"{HOME}/{path.relative_to(ROOT).as_posix()}"
    if path.is_dir():
        return f"{own}/README.md" if (path / "README.md").exists() else f"{own}/index.md"
    return f"{own}.md" if path.suffix in CODE else own


def outside(path: Path) -> Path:
    """Returns the file of the repository that a place on the site holds."""
    return path / "README.md" if path.is_dir() and (path / "README.md").exists() else path


def links(text: str, folder: Path) -> Iterator[Path]:
    """Yields the files of the repository that a document links to; `folder` is where it lies."""
    for match in LINK.finditer(text):
        path = Path(os.path.normpath(folder / match[2]))
        if path.exists() and path.is_relative_to(ROOT):
            yield outside(path)


def content(path: Path) -> str:
    """Returns the page of a file from outside, as Markdown."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        inside = sorted(one.name for one in path.iterdir() if not one.name.startswith(("_", ".")))
        return f"{UNSEARCHED}# {name}/\n\n" + "\n".join(f"- `{one}`" for one in inside)
    text = path.read_text(encoding="utf-8")
    if path.suffix in CODE:
        return f"{UNSEARCHED}# {name}\n\n````{CODE[path.suffix]}\n{text}````\n"
    return text.split("---\n", 2)[2] if text.startswith("---\n") else text  # a card's own front matter


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Returns the site's files with those that its pages link outside of `docs/`, and those that these link."""
    waiting = [ROOT / name for name in ALWAYS] + [ROOT / "synccontrol/models/tiny/README.md"]
    for page in sorted(DOCS.rglob("*.md")):
        waiting += links(page.read_text(encoding="utf-8"), page.parent)
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or place(path) in files.src_uris:
            continue
        seen.add(path)
        if path.suffix == ".md":
            waiting += links(path.read_text(encoding="utf-8"), path.parent)
        if path.is_dir() or path.suffix in CODE or path.suffix == ".md":
            files.append(File.generated(config, place(path), content=content(path)))
        else:
            files.append(File.generated(config, place(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns a page's text with its links turned to where the files lie on the site."""
    uri = page.file.src_uri
    own = ROOT / uri.removeprefix(f"{HOME}/") if uri.startswith(f"{HOME}/") else DOCS / uri
    folder = own.parent

    def turned(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(folder / match[2]))
        if not path.exists() or not path.is_relative_to(ROOT):
            return match[0]
        target = place(outside(path))
        anchor = "" if path.suffix in CODE else match[3] or ""
        return f"{match[1]}{os.path.relpath(target, Path(uri).parent)}{anchor}{match[4]}"

    return LINK.sub(turned, markdown)
