"""Pictures as a browser is shown them."""

import base64
import io

from PIL import Image

SHOWN = (512, 4096)  # px, height and width of what a browser is shown on the way, at most
QUALITY = 85  # of JPEG


def jpeg(image: Image.Image) -> str:
    """Returns a picture as a data URL, no larger than it is shown."""
    small = image.convert("RGB")
    small.thumbnail(SHOWN[::-1], Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
