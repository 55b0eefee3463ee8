"""Are there words that a stranger would not guess? python -m docs.words [FILE ...]

Names in code are nouns and verbs of the field, and documents have one word for each thing. This checks the worst only:
bare participles and pronouns as names, and the private words of earlier versions in prose. `make check` runs it.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PRODUCT = ("synccontrol", "preprocess", "cli.py", "examples")
DOCUMENTS = ("README.md", "docs", "benchmarks", "preprocess", "tests", "examples")
NAMES = {  # names that say nothing -> what to write
    "found": "what was found: image, match, names",
    "one": "the thing: image, window, name",
    "kept": "existing, cached, unchanged",
    "shown": "image, reference, visible",
    "said": "message, text, expected",
    "told": "message, notes",
    "wanted": "requested, template, size",
    "heard": "prompt, guided",
    "asked": "request, settings",
}
PROSE = {  # private words of earlier versions -> the field's
    r"scaffolds?": "draft",
    r"rough pictures?": "draft",
    r"restyl\w+": "style alignment",
    r"visitors?": "user, session",
    r"dr[ae]wn? over": "denoised again, upscaled",
    r"brush(?:ed)? anew|repaint\w*": "inpaint",
    r"for who(?:m|ever)?\b": "for users who",
    r"so many (?:of|steps)": "the number",
}
EXEMPT = ("CHANGELOG.md",)  # which names what was renamed


class Finding(NamedTuple):
    """A word at a place."""

    file: Path
    line: int
    word: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word}: write {self.advice}"


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the names that a module defines, with their lines: variables, parameters, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def in_code(file: Path, text: str) -> Iterator[Finding]:
    """Yield the names of a module that say nothing."""
    for name, line in names(ast.parse(text)):
        word = name.strip("_").lower()
        if word in NAMES:
            yield Finding(file, line, name, NAMES[word])


def in_prose(file: Path, text: str) -> Iterator[Finding]:
    """Yield the private words of a document. Code, links and names of files count as no prose."""
    for number, line in enumerate(text.splitlines(), 1):
        plain = re.sub(r"`[^`]*`|\]\([^)]*\)|<[^>]*>", " ", line)
        for pattern, advice in PROSE.items():
            for match in re.finditer(rf"\b(?:{pattern})\b", plain, re.IGNORECASE):
                yield Finding(file, number, match[0], advice)


def files(roots: tuple[str, ...], suffix: str) -> Iterator[Path]:
    """Yield the files of the repository with a suffix, each once."""
    for root in roots:
        path = ROOT / root
        for file in [path] if path.is_file() else sorted(path.rglob(f"*{suffix}")):
            if file.suffix == suffix and file.name not in EXEMPT and not any(p.is_symlink() for p in file.parents):
                yield file


def findings(paths: list[Path]) -> Iterator[Finding]:
    """Yield what is wrong in modules and documents."""
    for path in paths:
        text = path.read_text(encoding="utf-8")
        file = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        yield from in_code(file, text) if path.suffix == ".py" else in_prose(file, text)


def main(arguments: list[str]) -> int:
    """Print what is wrong, a line each; return 1 if there is anything."""
    paths = [Path(argument) for argument in arguments] or [*files(PRODUCT, ".py"), *files(DOCUMENTS, ".md")]
    wrong = list(findings(paths))
    for finding in wrong:
        print(finding)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
