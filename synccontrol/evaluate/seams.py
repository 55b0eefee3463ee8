"""Seams: the visibility of vertical window borders and of the place where a ring closes."""

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

SCHARR = 16.0  # sum of one side of OpenCV's kernel; normalises the response to the edge's height
STABILIZER = 0.1  # constant c of the score, in grey 0..1: keeps flat regions finite
STRIP = 4  # px on either side of a border for the mean colours
BORDER_REACH = 4  # px around a border that belong to it; columns further away are the reference
BAND = 2**22  # px processed together
BORDERS, RING = "window borders", "loop seam"
DS, STEP = "Discontinuity Score", "colour step"
WHAT = {
    DS: "How much sharper the image changes {} than right beside it",
    STEP: "How far the colour jumps {}, 0..255",
}
WHERE = {BORDERS: "at the borders of windows", RING: "where the ring closes"}
SOURCE = {
    DS: "arXiv 2407.18207, Discontinuity Score, with c = 0.1 of grey 0..1",
    STEP: "4 px on either side, per row and channel, without sign",
}


def discontinuity(image: Floats, loop: bool, rows: slice = slice(None)) -> Floats:
    """Return the Discontinuity Score between every two neighbouring columns of an image, (W,).

    The response of a horizontal Scharr filter at the two columns, each divided by the response at its other neighbour
    plus
    c, averaged: DS(a) of arXiv 2407.18207. Entry x is the place between columns x - 1 and x; entry 0 is the place where
    a ring closes.

    Args:
        image: (H, W, 3) in 0..255.
        loop: whether the right edge continues at the left; otherwise places within two columns of an edge are nan.
        rows: rows to score; the others only serve the filter.
    """
    grey = cv2.cvtColor((image / 255).astype(np.float32), cv2.COLOR_RGB2GRAY)
    ring = cv2.copyMakeBorder(grey, 0, 0, 1, 1, cv2.BORDER_WRAP)
    edges = np.abs(cv2.Scharr(ring, cv2.CV_64F, 1, 0, borderType=cv2.BORDER_REPLICATE))[rows, 1:-1] / SCHARR
    left = np.roll(edges, 1, axis=1) / (np.roll(edges, 2, axis=1) + STABILIZER)
    right = edges / (np.roll(edges, -1, axis=1) + STABILIZER)
    scores: Floats = (left + right).mean(axis=0) / 2
    return scores if loop else _without_edges(scores, 3)


def colour_step(image: Floats, loop: bool) -> Floats:
    """Return the colour step between every two neighbouring columns, 0..255, (W,).

    The absolute difference of the means of 4 px on the left and on the right, averaged over rows and channels.
    Arguments and places are those of `discontinuity`; without a loop, places within 3 px of an edge are nan.
    """
    ring = np.concatenate([image[:, -STRIP:], image, image[:, :STRIP]], axis=1)
    sums = np.cumsum(np.pad(ring, ((0, 0), (1, 0), (0, 0))), axis=1)
    strips = (sums[:, STRIP:] - sums[:, :-STRIP]) / STRIP  # entry x: the mean of columns x - STRIP .. x - 1
    width = image.shape[1]
    jumps: Floats = np.abs(strips[:, STRIP : STRIP + width] - strips[:, :width]).mean(axis=(0, 2))
    return jumps if loop else _without_edges(jumps, STRIP)


def score_places(image: Image.Image, loop: bool) -> dict[str, Floats]:
    """Return both scores of every place of an image, computed in bands of rows to bound memory."""
    rows = max(1, BAND // image.width)
    sums: dict[str, Floats] = {DS: np.zeros(image.width), STEP: np.zeros(image.width)}
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        above = max(top - 1, 0)  # the filter needs one more row on both sides
        band = np.asarray(image.crop((0, above, image.width, min(bottom + 1, image.height))), np.float64)
        own = slice(top - above, bottom - above)
        sums[DS] += discontinuity(band, loop, own) * (bottom - top)
        sums[STEP] += colour_step(band[own], loop) * (bottom - top)
    return {score: total / image.height for score, total in sums.items()}


def _without_edges(scores: Floats, reach: int) -> Floats:
    scores = scores.copy()
    scores[:reach] = np.nan
    scores[len(scores) - reach + 1 :] = np.nan
    return scores


def border_places(width: int, window: int, stride: int, loop: bool) -> list[int]:
    """Return the places (px) where windows of a canvas begin or end, sorted.

    Windows begin at 0, stride, 2 stride, ...; the last one is shifted to end with the canvas. In a ring they wrap
    around; place 0, where it closes, is excluded.
    """
    lefts = range(0, width, stride) if loop else (*range(0, width - window, stride), width - window)
    return sorted({(left + side) % width for left in lefts for side in (0, window)} - {0})


def reference_places(width: int, borders: Sequence[int], loop: bool, cell: int = 1) -> npt.NDArray[np.int64]:
    """Return the places between cells that are more than 4 px from borders, edges and the closing of a ring.

    If there are none, places inside cells count too; else all places that are no border.

    Args:
        width: width of the image in px.
        borders: places of borders in px.
        loop: whether the right edge continues at the left.
        cell: px of a latent cell. Decoders may show their cells, and windows end between two of them.
    """
    places = np.arange(STRIP, width - STRIP + 1)
    seams = np.array([*borders, 0, width] if loop else borders or [0])
    distances = np.abs(places[:, None] - seams[None]).min(axis=1)
    choices = [(distances > BORDER_REACH) & (places % cell == 0), distances > BORDER_REACH, distances > 0]
    return np.asarray(places[next((choice for choice in choices if choice.any()), choices[-1])])


def _cell(montage: Montage) -> int:
    """Return the px of a latent cell of a montage's model; 1 if the model is unknown."""
    sizes = geometry(montage.settings["model"]) if montage.settings.get("model") else None
    return sizes.cell if sizes else 1


def window_borders(montage: Montage, gallery: Gallery, settings: Settings) -> list[int]:
    """Return the places (px) where windows of a montage begin or end.

    Empty if neither the montage nor the settings state its windows, and for equirectangular panoramas, whose windows
    have no columns.

    Raises:
        ConfigError: the stride leaves gaps between windows.
    """
    recorded = montage.settings
    sizes = geometry(recorded["model"]) if recorded.get("model") else None
    if recorded.get("projection") == EQUIRECTANGULAR or not (settings.stride or (sizes and recorded.get("stride"))):
        return []
    cell = sizes.cell if sizes and not settings.stride else 1
    stride = settings.stride or recorded["stride"] * cell
    if stride > gallery.window:
        raise ConfigError(f"stride {stride} px leaves gaps between windows of {gallery.window} px; lower it")
    canvas = -(-gallery.width // cell) * cell  # of whole cells; the image is cropped out of it
    borders = border_places(canvas, gallery.window, stride, montage.is_ring(settings))
    return [place for place in borders if place < gallery.width]


def measure(
    gallery: Gallery, settings: Settings, progress: Progress
) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """Return the measurements of seams, and the skipped ones with the reason. Raise the errors of `window_borders`."""
    values: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for number, montage in enumerate(gallery.montages, 1):
        progress(f"seams: {montage.name} ({number} of {len(gallery.montages)})")
        borders, loop = window_borders(montage, gallery, settings), montage.is_ring(settings)
        image = montage.read()
        others = reference_places(gallery.width, borders, loop, _cell(montage))
        for score, scores in score_places(image, loop).items():
            elsewhere = float(np.nanmean(scores[others]))
            for where, places in ((BORDERS, borders), (RING, [0] if loop else [])):
                if not np.isnan(scores[places]).all():
                    values.setdefault((score, where), {})[montage.name] = (float(np.nanmean(scores[places])), elsewhere)
    missing = [(where, score) for where in WHERE for score in (DS, STEP) if (score, where) not in values]
    return _measurements(values, settings), [(f"{score}, {where}", _why(where)) for where, score in missing]


def _why(where: str) -> str:
    if where == RING:
        return "no montage is a ring; if they are, say so with --loop"
    return "the position of windows is not known: the images do not record it; set it with --stride (and --window)"


def _measurements(
    values: Mapping[tuple[str, str], Mapping[str, tuple[float, float]]], settings: Settings
) -> list[Measurement]:
    measured = []
    for (score, where), pairs in values.items():
        name, what = f"{score}, {where}", WHAT[score].format(WHERE[where])
        at_border = {montage: value for montage, (value, _) in pairs.items()}
        elsewhere = {montage: value for montage, (_, value) in pairs.items() if value > 0}
        absolute = summary(
            name,
            "seams",
            at_border,
            settings,
            better="lower",
            what=f"{what}.",
            source=SOURCE[score],
            bounds={"other columns": float(np.mean([value for _, value in pairs.values()]))},
        )
        measured.append(absolute)
        if elsewhere:
            relative = summary(
                f"{name} / other columns",
                "seams",
                {montage: at_border[montage] / value for montage, value in elsewhere.items()},
                settings,
                better="1",
                what=f"{what}, over the same at other places between latent cells: 1 is a seam that nobody can see.",
                source=SOURCE[score],
                bounds={"no seam": 1.0},
            )
            measured.append(relative)
    return measured
