"""How long each montage of a folder took: `timings.csv` beside the montages."""

import csv
from pathlib import Path

from synccontrol.errors import InputError

FILE = "timings.csv"
COLUMNS = ("montage", "seconds", "cpu_seconds")


def append(montage: Path, seconds: float, cpu_seconds: float) -> None:
    """Writes what a montage took into its folder's timings; the last line about a montage counts.

    Args:
        montage: its file, which need not exist yet.
        seconds: by the wall clock.
        cpu_seconds: of all threads.
    """
    path = montage.parent / FILE
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([montage.name, f"{seconds:.3f}", f"{cpu_seconds:.3f}"])


def read(folder: Path) -> dict[str, dict[str, float]]:
    """Returns `seconds`, and `cpu_seconds` where they are known, by montage (path relative to the folder).

    A folder without a `timings.csv`, in it or in a folder inside it, gives an empty result.

    Raises:
        InputError: a line has no montage, or what should be seconds is no number.
    """
    found: dict[str, dict[str, float]] = {}
    for path in sorted(folder.rglob(FILE)):
        inside = path.parent.relative_to(folder)
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    taken = {"seconds": float(row["seconds"])}
                    taken |= {"cpu_seconds": float(row["cpu_seconds"])} if row.get("cpu_seconds") else {}
                    found[(inside / row["montage"]).as_posix()] = taken
                except (KeyError, TypeError, ValueError) as error:
                    wanted = ", ".join(COLUMNS)
                    raise InputError(f"{path} line {number} is not {wanted}, as its first line should say") from error
    return found
