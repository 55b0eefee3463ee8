"""Seams: whether the vertical borders of windows, and the place where a ring closes, can be seen."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from synccontrol.errors import ConfigError
from synccontrol.evaluate.dataset import Gallery, Montage, geometry
from synccontrol.evaluate.measurement import Measurement, Progress, Settings, summary
from synccontrol.spec.settings import EQUIRECTANGULAR

Floats = npt.NDArray[np.float64]

SCHARR = 16.0  # the weights on one side of OpenCV's kernel; divided by it, an edge answers with its height
CALM = 0.1  # grey 0..1: the constant c of the score, which keeps flat regions finite
STRIP = 4  # px on either side of a border whose mean colours are compared
REACH = 4  # px from a border that belong to it; the columns further away are what it is held against
BAND = 2**22  # px that are looked at together
BORDERS, RING = "window borders", "loop seam"
DS, STEP = "Discontinuity Score", "colour step"
WHAT = {
    DS: "How much sharper the picture changes {} than right beside it",
    STEP: "How far the colour jumps {}, 0..255",
}
WHERE = {BORDERS: "at the borders of windows", RING: "where the ring closes"}
SOURCE = {
    DS: "arXiv 2407.18207, Discontinuity Score, with c = 0.1 of grey 0..1",
    STEP: "4 px on either side, per row and channel, without sign",
}


def discontinuity(picture: Floats, loop: bool, rows: slice = slice(None)) -> Floats:
    """Returns the Discontinuity Score of every place between two columns of a picture, (W,).

    The response of a horizontal Scharr filter at the two columns that touch, each over the response at its other
    neighbour plus c, averaged: DS(a) of arXiv 2407.18207. Entry x is the place between column x - 1 and column x;
    entry 0 is where a ring closes.

    Args:
        picture: (H, W, 3) in 0..255.
        loop: whether the right edge continues at the left; if not, places within two columns of an edge are nan.
        rows: those that count; the others are there because the filter looks at them.
    """
    grey = cv2.cvtColor((picture / 255).astype(np.float32), cv2.COLOR_RGB2GRAY)
    ring = cv2.copyMakeBorder(grey, 0, 0, 1, 1, cv2.BORDER_WRAP)
    edges = np.abs(cv2.Scharr(ring, cv2.CV_64F, 1, 0, borderType=cv2.BORDER_REPLICATE))[rows, 1:-1] / SCHARR
    left = np.roll(edges, 1, axis=1) / (np.roll(edges, 2, axis=1) + CALM)
    right = edges / (np.roll(edges, -1, axis=1) + CALM)
    scores: Floats = (left + right).mean(axis=0) / 2
    return scores if loop else _without_edges(scores, 3)


def colour_step(picture: Floats, loop: bool) -> Floats:
    """Returns how far the colour jumps at every place between two columns, 0..255, (W,).

    The mean of the 4 px on the left minus the mean of the 4 px on the right of a row, without sign, averaged over
    rows and channels. Arguments and places as `discontinuity`; without a loop, places within 3 px of an edge are nan.
    """
    ring = np.concatenate([picture[:, -STRIP:], picture, picture[:, :STRIP]], axis=1)
    sums = np.cumsum(np.pad(ring, ((0, 0), (1, 0), (0, 0))), axis=1)
    strips = (sums[:, STRIP:] - sums[:, :-STRIP]) / STRIP  # entry x: the mean of columns x - STRIP .. x - 1
    width = picture.shape[1]
    jumps: Floats = np.abs(strips[:, STRIP : STRIP + width] - strips[:, :width]).mean(axis=(0, 2))
    return jumps if loop else _without_edges(jumps, STRIP)


def over_rows(picture: Image.Image, loop: bool) -> dict[str, Floats]:
    """Returns both scores of every place of a picture, taken in bands of rows: memory does not grow with its height."""
    rows = max(1, BAND // picture.width)
    sums: dict[str, Floats] = {DS: np.zeros(picture.width), STEP: np.zeros(picture.width)}
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        above = max(top - 1, 0)  # the filter looks at one row more on both sides
        band = np.asarray(picture.crop((0, above, picture.width, min(bottom + 1, picture.height))), np.float64)
        own = slice(top - above, bottom - above)
        sums[DS] += discontinuity(band, loop, own) * (bottom - top)
        sums[STEP] += colour_step(band[own], loop) * (bottom - top)
    return {score: found / picture.height for score, found in sums.items()}


def _without_edges(scores: Floats, reach: int) -> Floats:
    scores = scores.copy()
    scores[:reach] = np.nan
    scores[len(scores) - reach + 1 :] = np.nan
    return scores


def borders_of(width: int, window: int, stride: int, loop: bool) -> list[int]:
    """Returns the places (px) where a window begins or ends between two columns of a canvas, sorted.

    Windows begin at 0, stride, 2 stride, ...; the last one is slid to end with the canvas. In a ring they pass the
    edge and go on at the other end; place 0, where it closes, is left out.
    """
    lefts = range(0, width, stride) if loop else (*range(0, width - window, stride), width - window)
    return sorted({(left + side) % width for left in lefts for side in (0, window)} - {0})


def other_places(width: int, borders: Sequence[int], loop: bool, cell: int = 1) -> npt.NDArray[np.int64]:
    """Returns the places between cells, more than 4 px from every border, and from the edges or where a ring closes.

    Where borders lie too close for that, places inside of cells too; or else all that are no border.

    Args:
        width: of the picture, px.
        borders: places, px.
        loop: whether the right edge continues at the left.
        cell: px of a latent cell. Decoders may show their cells, and windows end between two of them.
    """
    places = np.arange(STRIP, width - STRIP + 1)
    seams = np.array([*borders, 0, width] if loop else borders or [0])
    away = np.abs(places[:, None] - seams[None]).min(axis=1)
    choices = [(away > REACH) & (places % cell == 0), away > REACH, away > 0]
    return np.asarray(places[next((choice for choice in choices if choice.any()), choices[-1])])


def _cell(montage: Montage) -> int:
    """Returns the px of a latent cell of the model that drew a montage; 1 where that is not known."""
    known = geometry(montage.settings["model"]) if montage.settings.get("model") else None
    return known.cell if known else 1


def window_borders(montage: Montage, gallery: Gallery, settings: Settings) -> list[int]:
    """Returns the places (px) where windows of a montage begin or end; none where neither it nor the settings say how
    its windows lay, and for the windows of a sphere, which have no columns.

    Raises:
        ConfigError: the stride leaves gaps between windows.
    """
    own = montage.settings
    known = geometry(own["model"]) if own.get("model") else None
    if own.get("projection") == EQUIRECTANGULAR or not (settings.stride or (known and own.get("stride"))):
        return []
    cell = known.cell if known and not settings.stride else 1
    stride = settings.stride or own["stride"] * cell
    if stride > gallery.window:
        raise ConfigError(f"stride {stride} px leaves gaps between windows of {gallery.window} px; lower it")
    canvas = -(-gallery.width // cell) * cell  # of whole cells; the picture is cropped out of it
    borders = borders_of(canvas, gallery.window, stride, montage.is_ring(settings))
    return [place for place in borders if place < gallery.width]


def measure(
    gallery: Gallery, settings: Settings, progress: Progress
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Returns the figures of seams, and those that cannot be had, with why. Raises as `window_borders`."""
    found: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for number, montage in enumerate(gallery.montages, 1):
        progress(f"seams: {montage.name} ({number} of {len(gallery.montages)})")
        borders, loop = window_borders(montage, gallery, settings), montage.is_ring(settings)
        picture = montage.read()
        others = other_places(gallery.width, borders, loop, _cell(montage))
        for score, scores in over_rows(picture, loop).items():
            beside = float(np.nanmean(scores[others]))
            for where, places in ((BORDERS, borders), (RING, [0] if loop else [])):
                if not np.isnan(scores[places]).all():
                    found.setdefault((score, where), {})[montage.name] = (float(np.nanmean(scores[places])), beside)
    missing = [(where, score) for where in WHERE for score in (DS, STEP) if (score, where) not in found]
    return _measurements(found, settings), [(f"{score}, {where}", _why(where)) for where, score in missing]


def _why(where: str) -> str:
    if where == RING:
        return "no montage is a ring; if they are, say so with --loop"
    return "where windows lay is not known: the pictures do not say so; say it with --stride (and --window)"


def _measurements(
    found: Mapping[tuple[str, str], Mapping[str, tuple[float, float]]], settings: Settings
) -> list[Measurement]:
    measured = []
    for (score, where), pairs in found.items():
        name, what = f"{score}, {where}", WHAT[score].format(WHERE[where])
        there = {montage: value for montage, (value, _) in pairs.items()}
        beside = {montage: value for montage, (_, value) in pairs.items() if value > 0}
        absolute = summary(
            name,
            "seams",
            there,
            settings,
            better="lower",
            what=f"{what}.",
            source=SOURCE[score],
            bounds={"other columns": float(np.mean([value for _, value in pairs.values()]))},
        )
        measured.append(absolute)
        if beside:
            relative = summary(
                f"{name} / other columns",
                "seams",
                {montage: there[montage] / value for montage, value in beside.items()},
                settings,
                better="1",
                what=f"{what}, over the same at other places between latent cells: 1 is a seam that nobody can see.",
                source=SOURCE[score],
                bounds={"no seam": 1.0},
            )
            measured.append(relative)
    return measured
