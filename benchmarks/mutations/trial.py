"""One trial: a copy of the tree with one changed line, and the tests that should notice."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.mutations.draw import TOP, Mutation

LEFT_OUT = {".git", ".venv", "out", "site", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
TEST_LIMIT = 300  # s; a test of the default suite that takes longer hangs
TIMEOUT = "timeout"
PASSED, NOTHING_COLLECTED = 0, 5  # exit statuses of pytest
PYTHON_FILE = re.compile(r"\S+\.py(::|$)")
FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", re.MULTILINE)  # a line of pytest's summary


class Copy:
    """A copy of a tree, in which one line at a time is changed and tests run, on one thread.

    Args:
        tree: what is copied.
        folder: where to; made new.
    """

    def __init__(self, tree: Path, folder: Path) -> None:
        self.folder = folder
        self._running: subprocess.Popen[str] | None = None
        self._lock, self._stopped = threading.Lock(), False
        shutil.copytree(tree, folder, ignore=lambda _, names: LEFT_OUT & set(names))

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """Hold the line changed inside of the context.

        Raises:
            ValueError: the file has no such line any more.
        """
        path = self.folder / mutation.file
        original = path.read_bytes()
        try:
            self._write(path, changed(original.decode(), mutation).encode())
            yield
        finally:
            self._write(path, original)

    def test(self, *arguments: str) -> list[str]:
        """Return the tests that fail in the copy as it is now; a test file if it cannot be imported.

        The list holds `timeout` if a test hangs, and the end of what pytest printed if it could not even start.

        Args:
            arguments: of pytest; without tests among them the whole default suite runs.

        Raises:
            ValueError: there are no tests.
            KeyboardInterrupt: `stop` was called.
        """
        options = ["-q", "--tb=no", "-p", "no:cacheprovider", "-o", f"faulthandler_timeout={TEST_LIMIT}"]
        command = [sys.executable, "-m", "pytest", *options, "-o", "faulthandler_exit_on_timeout=true", *arguments]
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            self._running = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        output, _ = self._running.communicate()
        if self._stopped:
            raise KeyboardInterrupt
        if self._running.returncode == NOTHING_COLLECTED:
            raise ValueError(f"there are no tests: {' '.join(arguments)}")
        if self._running.returncode == PASSED:
            return []
        return FAILURE.findall(output) or [TIMEOUT if "Timeout (" in output else " ".join(output.split())[-200:]]

    def stop(self) -> None:
        """End the tests that run, and start no more."""
        with self._lock:
            self._stopped = True
            if self._running is not None and self._running.poll() is None:
                os.killpg(self._running.pid, signal.SIGKILL)  # a group of its own, with all that the tests started

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        """Write a file and remove what was compiled of it, which may have the same size and time."""
        path.write_bytes(content)
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def changed(source: str, mutation: Mutation) -> str:
    """Return a source with a mutation's line changed, also where other lines came or went above it.

    Raises:
        ValueError: there is no such line.
    """
    lines = source.split("\n")
    places = [number for number, line in enumerate(lines) if line == mutation.before]
    if not places:
        raise ValueError(f"{mutation.file} has no line {mutation.before.strip()!r} any more; draw the list again")
    lines[min(places, key=lambda number: abs(number + 1 - mutation.line))] = mutation.after
    return "\n".join(lines)


def tests_of(tree: Path, mutation: Mutation) -> list[str]:
    """Return the test files of a mutation's room, those of its module first, then those that import the module.

    A room without a folder of tests has those of all files that import its module.
    """
    module = Path(mutation.file).with_suffix("")
    dotted = ".".join(module.parts[:-1] if module.name == "__init__" else module.parts)
    everything = sorted((tree / "tests").rglob("test_*.py"))
    folder = tree / "tests" / ("" if mutation.room == TOP else mutation.room)
    own = [path for path in everything if (path.parent == folder if mutation.room == TOP else folder in path.parents)]
    ranks = {path: _rank(path, dotted) for path in own or everything}
    if not own:
        ranks = {path: rank for path, rank in ranks.items() if rank < _UNRELATED}
    return [path.relative_to(tree).as_posix() for path in sorted(ranks, key=lambda path: (ranks[path], path))]


_SAME_NAME, _IMPORTS, _UNRELATED = range(3)


def _rank(path: Path, module: str) -> int:
    """Return how near a test file is to a module."""
    stem = module.rpartition(".")[2]
    if path.stem == f"test_{stem}" or path.stem.startswith(f"test_{stem}_"):
        return _SAME_NAME
    return _IMPORTS if module in _imported(path) else _UNRELATED


def _imported(path: Path) -> set[str]:
    """Return the dotted names that a file imports, and what each is part of."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return names


def killer(copy: Copy, mutation: Mutation, tests: Sequence[str], left_out: Iterable[str]) -> str:
    """Return the first test that fails under a mutation; empty if the mutation survives.

    Args:
        copy: where to try.
        mutation: what to try.
        tests: test files in their order; none is the whole default suite.
        left_out: tests and test files that fail without the mutation too.

    Raises:
        ValueError: there are no tests, or the file has no such line any more.
    """
    without = [f"--{'deselect' if '::' in test else 'ignore'}={test}" for test in sorted(left_out)]
    with copy.mutated(mutation):
        failures = copy.test("-x", *without, *tests)
    return failures[0] if failures else ""


def failing(copy: Copy, tests: Iterable[str]) -> set[str]:
    """Return which of some tests and test files fail in the unchanged copy too."""
    named = sorted(test for test in tests if PYTHON_FILE.match(test))  # others have no name, as a timeout
    single, files = ([test for test in named if ("::" in test) is whole] for whole in (True, False))
    failures = copy.test(*single) if single else []
    failures += copy.test("--collect-only", *files) if files else []
    if not set(failures) <= set(named):
        raise ValueError(f"the tests do not run without a mutation either: {failures[0]}")
    return set(failures)
