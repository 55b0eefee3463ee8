"""Do the tests notice a wrong line? python -m benchmarks.mutations --draw, then python -m benchmarks.mutations

`--draw` draws 60 one-line mutations from all rooms, with a seed: at least 3 of each room and the rest by its lines,
every operator about as often as the others. `mutations.jsonl` lists them. The operators:

compare     a comparison becomes its neighbour or opposite: < and <=, == and !=, in and not in, is and is not
arithmetic  + and - are swapped, or * and /; // becomes *
constant    a whole number is one more or less; another one is doubled or halved
boolean     `and` and `or` are swapped
not         a `not` is dropped
extreme     min and max are swapped
arguments   the first two arguments of a call are swapped
return      the value is returned as it was before the last operation: the first operand or argument
default     a default of a parameter or field is another
condition   the condition of an `if` is negated, in expressions and comprehensions too
slice       a bound of a slice is one more
key         a key of a mapping is another

Docstrings, annotations, decorators, assertions, error messages, help texts, what is printed or noted, `__all__` and
blocks for type checkers are left alone, and so are edits that give the same program or none.

Without `--draw` each mutation is tried, in a copy of the tree, against its room's tests: `tests/<room>`, or the files
directly in `tests/` for modules directly in `synccontrol/`. Those of the module run first, then those that import it.
`--all` then tries the survivors against the whole default suite. A test that takes longer than 5 minutes counts as
failed. At the end the tests that failed run in the unchanged copy: those that fail there too do not count, and the
trials that they decided are repeated without them.

`results.jsonl` gets a line for each trial when it ends; the last line of a mutation counts. The same command goes on
after an interruption, and leaves out what has a result, unless `--only` names it. `--table` prints the table of what
is there.
"""

import argparse
import json
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.mutations.draw import COUNT, SEED, Mutation, draw, read, write
from benchmarks.mutations.trial import Copy, failing, killer, tests_of

FOLDER = Path(__file__).resolve().parent
ROOM, ALL = "room", "all"  # which tests a trial runs
Report = Callable[[dict[str, Any]], None]


def key(suite: str, mutation: Mutation) -> tuple[str, str, str, str]:
    """Return what a result belongs to; a list that is drawn again has other mutations."""
    return suite, mutation.file, mutation.before, mutation.after


def stored(path: Path) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    """Return the last result of every trial."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    results = [json.loads(line) for line in lines]
    return {(result["suite"], result["file"], result["before"], result["after"]): result for result in results}


class Trials:
    """Try mutations in several copies of a tree at once.

    Args:
        tree: checkout.
        folder: for the copies.
        jobs: how many copies.
        report: called with every result, one at a time.
    """

    def __init__(self, tree: Path, folder: Path, jobs: int, report: Report) -> None:
        self._tree, self._report, self._lock = tree, report, threading.Lock()
        self._copies = [Copy(tree, folder / f"copy{number}") for number in range(jobs)]
        self._free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for copy in self._copies:
            self._free.put(copy)
        self.left_out: set[str] = set()  # tests that fail without any mutation
        self._passing: set[str] = set()

    def check(self, tests: Iterable[str]) -> set[str]:
        """Return the tests that fail without any mutation too, and leave them out from now on."""
        unknown = set(tests) - self._passing
        failures = failing(self._copies[0], unknown)
        self._passing |= unknown - failures
        self.left_out |= failures
        return failures

    def run(self, suite: str, mutations: Sequence[tuple[int, Mutation]]) -> None:
        """Try numbered mutations. Raises `ValueError` where a mutation cannot be tried."""
        with ThreadPoolExecutor(len(self._copies)) as pool:
            futures = [pool.submit(self._try, suite, number, mutation) for number, mutation in mutations]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for copy in self._copies:
                    copy.stop()
                raise

    def _try(self, suite: str, number: int, mutation: Mutation) -> None:
        copy = self._free.get()
        try:
            start = time.monotonic()
            tests = tests_of(self._tree, mutation) if suite == ROOM else []
            test = killer(copy, mutation, tests, self.left_out)
            result = {
                "index": number,
                "suite": suite,
                "room": mutation.room,
                "operator": mutation.operator,
                "file": mutation.file,
                "line": mutation.line,
                "before": mutation.before,
                "after": mutation.after,
                "killed": bool(test),
                "by": test,
                "seconds": round(time.monotonic() - start, 1),
            }
            with self._lock:
                self._report(result)
        finally:
            self._free.put(copy)


def table(mutations: Sequence[Mutation], results: dict[tuple[str, str, str, str], dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table of rooms, and those of the survivors."""
    outcomes = [[results.get(key(suite, mutation)) for suite in (ROOM, ALL)] for mutation in mutations]
    yield "| Room | Mutations | Killed by the room's tests | Killed by others | Survived | Not tried |"
    yield "|---|---|---|---|---|---|"
    rooms = list(dict.fromkeys(mutation.room for mutation in mutations))
    for name in [*rooms, "all"]:
        own = [outcome for mutation, outcome in zip(mutations, outcomes, strict=True) if name in (mutation.room, "all")]
        tried = [[result["killed"] for result in outcome if result is not None] for outcome in own]
        by_room = sum(killed[:1] == [True] for killed in tried)
        by_others = sum(killed == [False, True] for killed in tried)
        survived = sum(bool(killed) and not any(killed) for killed in tried)
        yield f"| {name} | {len(own)} | {by_room} | {by_others} | {survived} | {sum(not killed for killed in tried)} |"
    for number, (mutation, outcome) in enumerate(zip(mutations, outcomes, strict=True), 1):
        results_of_it = [result for result in outcome if result is not None]
        if results_of_it and not any(result["killed"] for result in results_of_it):
            suites = " and ".join(result["suite"] for result in results_of_it)
            yield f"\n{number} survived ({suites}): {mutation.file}:{mutation.line}, {mutation.operator}"
            yield f"  - {mutation.before.strip()}\n  + {mutation.after.strip()}"


def main() -> int:
    """Draw or try the mutations, and print a table. Return the exit status: 0 done, 2 not possible, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=Path(), help="checkout (default: this folder)")
    parser.add_argument("--draw", action="store_true", help="draw the list, and stop")
    parser.add_argument("--count", type=int, default=COUNT, help=f"with --draw: of mutations (default: {COUNT})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"with --draw (default: {SEED})")
    parser.add_argument("--only", type=int, nargs="+", metavar="INDEX", help="try these again, from 1")
    parser.add_argument("--table", action="store_true", help="print the table of the results, and stop")
    parser.add_argument("--all", action="store_true", help="try survivors against the whole default suite")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time, a core each (default: 1)")
    parser.add_argument("--list", type=Path, default=FOLDER / "mutations.jsonl", help="file of the mutations")
    parser.add_argument("--results", type=Path, default=FOLDER / "results.jsonl", help="file of the results")
    options = parser.parse_args()
    tree = options.tree.resolve()
    if options.draw:
        write(draw(tree, options.seed, options.count), options.list)
        return 0
    if not options.list.exists():
        parser.error(f"{options.list} does not exist; draw it with --draw")
    if options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}; it must be 1 or more")
    mutations = read(options.list)
    if options.only and not set(options.only) <= set(range(1, len(mutations) + 1)):
        parser.error(f"--only names mutations from 1 to {len(mutations)}")
    numbered = [(number, each) for number, each in enumerate(mutations, 1) if number in (options.only or [number])]
    results = stored(options.results)
    if options.table:
        print("\n".join(table(mutations, results)))
        return 0

    def report(result: dict[str, Any]) -> None:
        with options.results.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(result)}\n")
        results[result["suite"], result["file"], result["before"], result["after"]] = result
        verdict = f"killed by {result['by']}" if result["killed"] else "survived"
        print(f"{result['index']:3} {result['file']}:{result['line']} {result['suite']}: {verdict}", flush=True)

    def left(suite: str) -> list[tuple[int, Mutation]]:
        return [(number, each) for number, each in numbered if key(suite, each) not in results]

    for _, mutation in numbered if options.only else ():
        for suite in (ROOM, ALL):
            results.pop(key(suite, mutation), None)
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        try:
            trials = Trials(tree, Path(folder), options.jobs, report)
            while True:
                trials.run(ROOM, left(ROOM))
                if options.all:
                    trials.run(ALL, [pair for pair in left(ALL) if not results[key(ROOM, pair[1])]["killed"]])
                kills = {key(suite, each) for _, each in numbered for suite in (ROOM, ALL)} & results.keys()
                void = trials.check(results[kill]["by"] for kill in kills if results[kill]["killed"])
                for kill in kills:
                    if results[kill]["by"] in void:
                        del results[kill]
                if not void:
                    break
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; the same command goes on", file=sys.stderr)
            return 130
    for test in sorted(trials.left_out):
        print(f"left out, because it fails without a mutation too: {test}", file=sys.stderr)
    print("\n".join(table(mutations, results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
