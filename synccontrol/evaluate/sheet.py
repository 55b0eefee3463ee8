"""A sheet of a batch as one HTML file beside its pictures: guides, control maps and pictures, below each other."""

import dataclasses
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from synccontrol.evaluate.style import STYLE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture of a batch."""

    title: str
    said: str  # what is known of it: prompt, seed, seconds
    error: str = ""
    shown: tuple[tuple[str, Path], ...]  # what to call each picture, and its file


def sheet(title: str, entries: Sequence[Entry], folder: Path) -> str:
    """Returns the sheet. Pictures are linked, not held, so that it stays small however many there are.

    Args:
        title: of the whole.
        entries: in their order.
        folder: where the sheet will lie; links are relative to it.
    """
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *(_entry(entry, folder) for entry in entries)])
    return f'<!doctype html>\n<html lang="en"><head>{head}{view}</head>\n<body>\n{body}\n</body></html>\n'


def _entry(entry: Entry, folder: Path) -> str:
    figures = "".join(_figure(label, path, folder, entry.title) for label, path in entry.shown)
    error = f'<p class="worse">{escape(_plain(entry.error))}</p>' if entry.error else ""
    return f"<h2>{escape(_plain(entry.title))}</h2><p><small>{escape(_plain(entry.said))}</small></p>{error}{figures}"


def _figure(label: str, path: Path, folder: Path, title: str) -> str:
    link = quote(os.fsencode(os.path.relpath(path, folder)))
    text = escape(_plain(f"{title}, {label}"), quote=True)
    return (
        f'<figure><a href="{link}"><img loading="lazy" alt="{text}" src="{link}"></a>'
        f"<figcaption>{escape(label)}</figcaption></figure>"
    )


def _plain(text: str) -> str:
    """Returns a text that UTF-8 can hold, whatever bytes a file's name has."""
    return text.encode("utf-8", "replace").decode("utf-8")
