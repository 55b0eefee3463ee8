"""How large a picture is: as asked, or by its guide."""

from PIL import Image

from synccontrol.canvas import sphere
from synccontrol.config import EQUIRECTANGULAR, Geometry
from synccontrol.errors import ConfigError, InputError
from synccontrol.jobs.job import Job

LARGEST_ENLARGEMENT = 8  # a guide enlarged further has nothing left to follow


def canvas_size(guide: Image.Image | None, job: Job, geometry: Geometry) -> tuple[int, int]:
    """Returns height and width, px: as asked; else the guide's aspect, its shorter side the model's native one.

    Raises:
        ConfigError: there is neither guide nor size.
        InputError: the guide is so small that nothing is left to follow once it is enlarged.
    """
    height, width, windows = job.height, job.width, job.recipe.windows
    native_h, native_w = geometry.window_px
    if guide is None and width is None and height is None:
        raise ConfigError("without a guide the picture needs --width in pixels, and --height if not the native one")
    if windows.projection == EQUIRECTANGULAR:
        height, width = sphere.size(height, width, geometry)
    if guide is None:
        return native_h if height is None else height, native_w if width is None else width
    aspect = guide.width / guide.height
    if height is None and width is None:
        height = native_h if aspect >= native_w / native_h else round(native_w / aspect)
    if width is None:
        assert height is not None
        width = round(height * aspect)
        if windows.loop:  # whole cells, or the ring would not close
            width = max(round(width / geometry.cell) * geometry.cell, native_w)
    height = round(width / aspect) if height is None else height
    smallest = min(guide.size)
    if min(height, width) > LARGEST_ENLARGEMENT * smallest:
        needed = -(-min(height, width) // LARGEST_ENLARGEMENT)
        raise InputError(
            f"the guide is only {guide.width}x{guide.height}: to fill {width}x{height} it would be enlarged more than "
            f"{LARGEST_ENLARGEMENT} times; its shorter side needs at least {needed} pixels"
        )
    return height, width


def size_of(start: Image.Image, job: Job) -> tuple[int, int]:
    """Returns height and width, px, of a picture that starts from another: as asked, else the other's, grown.

    Raises:
        ConfigError: it would grow by more than the width that is asked for.
    """
    grown = sum(job.recipe.compose.margins)
    if job.width is not None and job.width <= grown:
        raise ConfigError(f"width {job.width} leaves nothing of the picture that grows by {grown} px; use more")
    height, kept = job.height, None if job.width is None else job.width - grown
    if height is None:
        height = start.height if kept is None else round(kept * start.height / start.width)
    if kept is None:
        kept = round(height * start.width / start.height)
    return height, kept + grown
