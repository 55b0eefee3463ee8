"""Stable Diffusion without weights: the networks that configuration files describe, to rehearse memory with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from synccontrol.config import Geometry


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Skeleton:
    """The networks of a model, built from its configuration files alone. Build it under a `FakeTensorMode`.

    Args:
        base: a diffusers folder or hub id.
        controlnets: as for the family's `load`.
        geometry: the model's native sizes.
        dtype: of weights and latents.
        options: of `load_config` (local_files_only, ...).
    """

    def __init__(
        self,
        base: str,
        controlnets: Sequence[str | tuple[str, str]],
        geometry: Geometry,
        dtype: torch.dtype,
        **options: Any,
    ) -> None:
        def build(kind: Any, source: str, subfolder: str | None) -> Any:
            config = kind.load_config(source, subfolder=subfolder, **options)
            with _default_dtype(dtype):  # FakeTensorMode cannot convert modules afterwards
                return kind.from_config(config).requires_grad_(False)

        library, vae_class = diffusers.DiffusionPipeline.load_config(base, **options)["vae"]
        self._geometry = geometry
        self._dtype = dtype
        self._unet = build(diffusers.UNet2DConditionModel, base, "unet")
        self._vae = build(getattr(import_module(library), vae_class), base, "vae")
        sources = [source if isinstance(source, tuple) else (source, None) for source in controlnets]
        self._nets = [build(diffusers.ControlNetModel, *source) for source in sources]
        with _default_dtype(dtype):
            text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(base, subfolder="text_encoder", **options))
        self._modules: list[nn.Module] = [self._unet, self._vae, text_encoder, *self._nets]

    def weights(self) -> int:
        """Returns the bytes of all weights."""
        return sum(tensor.nbytes for module in self._modules for tensor in module.state_dict().values())

    def latents(self, n: int, height: int, width: int) -> Tensor:
        """Returns empty latents (n, c, height, width)."""
        return torch.zeros(n, self._geometry.channels, height, width, dtype=self._dtype)

    def predict(self, z: Tensor, halves: int) -> Tensor:
        """Returns predictions for windows z (n, c, h, w), each evaluated `halves` times (2 with guidance)."""
        h, w = self._geometry.window_px
        z = torch.cat([z] * halves)
        text = torch.zeros(len(z), 77, self._unet.config.cross_attention_dim, dtype=self._dtype)
        maps = torch.zeros(len(z), 3, h, w, dtype=self._dtype)
        down, mid = None, None
        for net in self._nets:
            down, mid = net(z, 1, encoder_hidden_states=text, controlnet_cond=maps, return_dict=False)
        prediction: Tensor = self._unet(
            z,
            1,
            encoder_hidden_states=text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]
        return prediction.chunk(halves)[0]

    def decode(self, x0: Tensor) -> Tensor:
        """Returns pictures for latents."""
        images: Tensor = self._vae.decode(x0, return_dict=False)[0]
        return images
