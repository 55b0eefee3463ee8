"""Img2img and inpainting: outside of the mask, the clean estimate is the init image.

Stock pipelines paste the init image over the canvas after every step, under the same noise. Replacing the estimate has
the same effect for every solver without noise of its own, and works with solvers that keep a history.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from synccontrol.canvas.base import AbstractLayout, Merger
from synccontrol.families.base import AbstractFamily
from synccontrol.io import images, masks
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import NoiseLevel, prediction_for, x0_hat
from synccontrol.spec.image_spec import ImageSpec
from synccontrol.spec.settings import MATCH_SOURCE


class InpaintPredictor:
    """A `Predict` that keeps the init image outside of a mask. Windows without generated cells skip the networks.

    Args:
        predict: the prediction of windows without a mask.
        known: clean latents of the init image.
        free: 1 for cells that are generated, 0 for cells of the init image.
        kind: what is predicted, one of `levels.KINDS`.
    """

    def __init__(
        self, predict: Predict, known: Float[Tensor, "n c h w"], free: Float[Tensor, "n 1 h w"], kind: str
    ) -> None:
        self._predict = predict
        self._known = known
        self._free = free
        self._kind = kind

    def __call__(
        self, z: Float[Tensor, "k c h w"], level: NoiseLevel, windows: Sequence[int]
    ) -> Float[Tensor, "k c h w"]:
        indices = list(windows)
        x0, free = self._known[indices], self._free[indices]
        rows = [row for row in range(len(indices)) if bool(free[row].any())]
        if rows:
            predictions = self._predict(z[rows], level, [indices[row] for row in rows])
            mixed = torch.lerp(x0[rows], x0_hat(z[rows], predictions, level, self._kind), free[rows])
            x0 = x0.index_copy(0, torch.tensor(rows, device=z.device), mixed)
        return prediction_for(z, x0, level, self._kind)


MASK_THRESHOLD = 0.5  # inpainting models generate pixels whose alpha is at least this, as in diffusers


class InitImage:
    """The init image of a stage.

    Args:
        family: the model.
        layout: the canvas.
        image: the init image, at the size of the stage.
        alpha: share of each pixel that is generated; None: all pixels are denoised from a noised init image.
        spec: of the image that is generated.
    """

    def __init__(
        self,
        family: AbstractFamily,
        layout: AbstractLayout,
        image: Image.Image,
        alpha: masks.Alpha | None,
        spec: ImageSpec,
    ) -> None:
        self._family = family
        self._layout = layout
        self._image = image
        self._alpha = alpha
        self._matches_colors = spec.img2img.color_match == MATCH_SOURCE
        self._closed = spec.windows.closed
        self._free: Tensor | None = None  # 1 for points of the canvas that are generated, else 0: (1, 1, *shape)
        self._latents: Tensor | None = None
        if alpha is not None:
            cells = torch.from_numpy(masks.latent_mask(alpha, family.geometry.cell, (layout.height, layout.width)))
            windows = layout.crop_image(cells[None, None], 1, range(len(layout)))
            self._free = (Merger(layout, "uniform", windows)(windows) > 0).to(family.canvas_dtype)

    @torch.no_grad()
    def encoded(self) -> Tensor:
        """Return the clean latents of the init image, (1, c, *shape); call it inside a session.

        The image is encoded window by window, so memory does not grow with its size.
        """
        if self._latents is None:
            family, layout = self._family, self._layout
            pixels, where = images.to_uint8(self._image), (family.device, family.canvas_dtype)
            crops = (layout.crop_image(pixels, family.geometry.cell, [window]) for window in range(len(layout)))
            windows = torch.cat([family.encode(crop.to(*where) * 2 - 1) for crop in crops])
            self._latents = Merger(layout, "ramp", windows)(windows)
        return self._latents

    @torch.no_grad()
    def inpaint_channels(self) -> list[Tensor]:
        """Return the additional input channels of an inpainting model for each window; none without a mask.

        Call it inside a session. The mask is binarized at `MASK_THRESHOLD`.
        """
        family, channels = self._family, list[Tensor]()
        if self._alpha is None or not family.is_inpainting_model:
            return channels
        image_and_alpha = self._image_and_alpha()
        for window in range(len(self._layout)):
            crops = self._crop(image_and_alpha, [window])
            image, mask = (crop.to(device=family.device, dtype=family.canvas_dtype) for crop in crops)
            channels.append(family.inpaint_channels(image * 2 - 1, mask))
        return channels

    def map(self, masked_value: float, windows: Sequence[int]) -> Tensor:
        """Return windows of the control map for inpainting, (k, 3, H, W) in 0..1: the init image with a hole.

        Args:
            masked_value: the value of pixels that are generated, as `AbstractFamily.masked_value`.
            windows: their indices.
        """
        image, mask = self._crop(self._image_and_alpha(), windows)
        return image.where(mask == 0, torch.full_like(image, masked_value))

    def _image_and_alpha(self) -> Tensor:
        """Return the init image and its alpha, (1, 4, height, width) in 0..1."""
        image = images.to_tensor(self._image)
        alpha = torch.zeros_like(image[:, :1]) if self._alpha is None else torch.from_numpy(self._alpha)[None, None]
        return torch.cat([image, alpha.to(image)], dim=1)

    def _crop(self, image_and_alpha: Tensor, windows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return windows of the image (k, 3, H, W) in 0..1, and of the binary mask (k, 1, H, W)."""
        crops = self._layout.crop_image(image_and_alpha, self._family.geometry.cell, windows)
        return crops[:, :3], (crops[:, 3:] >= MASK_THRESHOLD).to(crops)

    def start(self, skipped: int) -> Tensor | None:
        """Return the clean latents to add noise to, with `skipped` steps left out; None: start from pure noise.

        Inpainting models see the init image as additional channels, and start from pure noise.
        """
        pure_noise = self._alpha is not None and self._family.is_inpainting_model and not skipped
        return None if pure_noise else self.encoded()

    def within(self, predict: Predict, kind: str) -> Predict:
        """Return a prediction that keeps the init image outside of the mask; `kind` is what is predicted."""
        if self._free is None:
            return predict
        latents = self.encoded()
        free = self._layout.crop(self._free.to(latents))
        if self._family.is_inpainting_model:  # its networks keep the init image: they predict whole windows, or none
            free = free.amax(dim=(1, 2, 3), keepdim=True).expand_as(free)
        return InpaintPredictor(predict, self._layout.crop(latents), free, kind)

    def latents(self, x0: Tensor) -> Tensor:
        """Return a clean canvas with the latents of the init image outside of the mask."""
        return x0 if self._free is None else self.encoded().lerp(x0, self._free.to(x0))

    def composite(self, image: Image.Image) -> Image.Image:
        """Return a generated image pasted into the init image; outside of the mask not one pixel changes."""
        if self._matches_colors:
            image = masks.match_colors(image, self._image, min(self._family.geometry.window_px), self._closed)
        return image if self._alpha is None else masks.composite(image, self._image, self._alpha)
