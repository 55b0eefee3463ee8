"""The loss curve as a picture."""

import csv
from pathlib import Path

import cv2
import numpy as np

_SIZE = (420, 840)  # px, height and width
_MARGIN = 56  # px
_INK, _GRID, _LINE, _WIDE = (60, 60, 60), (225, 225, 225), (190, 110, 40), (50, 90, 200)  # BGR


def plot(log: Path, target: Path) -> None:
    """Write a PNG of the loss over the minutes of a training log; the part on full-width windows in another colour."""
    with log.open() as file:
        rows = list(csv.DictReader(file))
    minutes, loss = (np.array([float(row[name]) for row in rows]) for name in ("minutes", "loss"))
    wide = np.array([row["width"] == "256" for row in rows])
    height, width = _SIZE
    picture = np.full((height, width, 3), 255, np.uint8)
    low, high = np.log10(loss.min() * 0.95), np.log10(loss.max() * 1.05)

    def at(minute: float, value: float) -> tuple[int, int]:
        x = _MARGIN + (width - 2 * _MARGIN) * minute / minutes.max()
        y = height - _MARGIN - (height - 2 * _MARGIN) * (np.log10(value) - low) / (high - low)
        return round(float(x)), round(float(y))

    def text(words: str, x: int, y: int) -> None:
        cv2.putText(picture, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)

    for value in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.6, 0.8, 1.0):
        if low <= np.log10(value) <= high:
            cv2.line(picture, at(0, value), at(minutes.max(), value), _GRID, 1)
            text(f"{value:g}", 14, at(0, value)[1] + 5)
    for minute in np.arange(0, minutes.max() + 1, 10):
        text(f"{minute:.0f}", at(minute, loss.min())[0] - 8, height - _MARGIN + 22)
    for first, second, full in zip(range(len(loss) - 1), range(1, len(loss)), wide[1:], strict=True):
        ends = at(minutes[first], loss[first]), at(minutes[second], loss[second])
        cv2.line(picture, *ends, _WIDE if full else _LINE, 1, cv2.LINE_AA)
    text("loss (v-prediction, mean squared error) over minutes; orange-red: full-width windows", _MARGIN, 30)
    cv2.imwrite(str(target), picture)
