"""The autoencoder of the bundled model: a lapped patch codec with small residual networks.

A linear map between 8x8 patches with their neighbours and a few latent channels does most of the work; it is
initialised with the principal components of patches. A few convolutions at cell resolution add what a linear map cannot
express. There are no absolute positions and no norms across space: moving an image by whole cells moves its latents.
"""

from typing import Literal, cast, overload

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

_RGB = 3
_HALF = 2  # resolution of the decoder's residual before its last shuffle, in steps per cell


class PointDistribution:
    """The latents of an image with the sampling methods that pipelines expect; deterministic."""

    def __init__(self, latents: Tensor) -> None:
        self.mean = latents

    def mode(self) -> Tensor:
        """Return the latents."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return the latents: this autoencoder is deterministic, so every sample is the mode."""
        return self.mean


def _conv(in_channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    """Return a convolution with replicated borders."""
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2, padding_mode="replicate")


class _Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_conv(channels, channels), nn.SiLU(), _conv(channels, channels), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.layers(x))


class PatchAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """An autoencoder with the contract of a diffusers VAE: images in -1..1, latents of unit size.

    Args:
        latent_channels: channels of a latent cell.
        hidden_channels: width of the residual networks at cell resolution.
        fine_channels: width of the decoder's residual at half-cell resolution.
        fine_blocks: number of blocks at half-cell resolution.
        pixel_channels: width of the decoder's final pixel-resolution layers, which smooth its grid; 0: none.

    Rarely needed:
        block_out_channels: only its length matters: pipelines derive the cell size (2 ** (length - 1) px) from it.
        scaling_factor: factor that pipelines apply to latents; the codec's latents need none.
        force_upcast: whether pipelines must decode in float32.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        latent_channels: int = 8,
        hidden_channels: int = 96,
        fine_channels: int = 32,
        fine_blocks: int = 0,
        pixel_channels: int = 0,
        block_out_channels: tuple[int, ...] = (192, 192, 192, 192),
        scaling_factor: float = 1.0,
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        self.cell = 2 ** (len(block_out_channels) - 1)  # px
        patch = _RGB * self.cell**2
        self.linear_encoder = _conv(patch, latent_channels)
        self.residual_encoder = nn.Sequential(
            _conv(patch, hidden_channels, 1),
            nn.SiLU(),
            _Block(hidden_channels),
            _conv(hidden_channels, latent_channels),
        )
        self.linear_decoder = _conv(latent_channels, patch)
        self.residual_decoder = nn.Sequential(
            _conv(latent_channels, hidden_channels),
            nn.SiLU(),
            _Block(hidden_channels),
            _conv(hidden_channels, fine_channels * _HALF**2),
            nn.PixelShuffle(_HALF),
            nn.SiLU(),
            *(_Block(fine_channels) for _ in range(fine_blocks)),
            _conv(fine_channels, patch // _HALF**2),
            nn.PixelShuffle(self.cell // _HALF),
        )
        self.finish = (
            nn.Sequential(_conv(_RGB, pixel_channels), nn.SiLU(), _conv(pixel_channels, _RGB))
            if pixel_channels
            else None
        )

    @overload
    def encode(self, x: Tensor, return_dict: Literal[True] = True) -> AutoencoderKLOutput: ...

    @overload
    def encode(self, x: Tensor, return_dict: Literal[False]) -> tuple[PointDistribution]: ...

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[PointDistribution]:
        """Return the latents (b, c, H / 8, W / 8) of images (b, 3, H, W) in -1..1, as `.latent_dist`."""
        patches = F.pixel_unshuffle(x, self.cell)
        latents = PointDistribution(self.linear_encoder(patches) + self.residual_encoder(patches))
        return AutoencoderKLOutput(latent_dist=latents) if return_dict else (latents,)

    @overload
    def decode(
        self, z: Tensor, return_dict: Literal[True] = True, generator: torch.Generator | None = None
    ) -> DecoderOutput: ...

    @overload
    def decode(
        self, z: Tensor, return_dict: Literal[False], generator: torch.Generator | None = None
    ) -> tuple[Tensor]: ...

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """Return the images (b, 3, H, W), about -1..1, of latents (b, c, H / 8, W / 8), as `.sample`.

        `generator` is part of the contract of a VAE; nothing here is random.
        """
        image = F.pixel_shuffle(self.linear_decoder(z), self.cell) + self.residual_decoder(z)
        if self.finish is not None:
            image = image + self.finish(image)
        return DecoderOutput(sample=image) if return_dict else (image,)

    def forward(self, x: Tensor) -> Tensor:
        """Return images (b, 3, H, W) after encoding and decoding."""
        (image,) = self.decode(self.encode(x).latent_dist.mode(), return_dict=False)
        return image
