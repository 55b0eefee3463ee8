"""The autoencoder of the bundled model: a lapped patch codec with a small residual network on either side.

A linear map from 8x8 patches and their neighbours to a few latent channels does most of the work (it starts from
the principal components of patches); what a linear map cannot express, a few convolutions at cell resolution add.
There are no absolute positions and no norms across space: moving a picture by whole cells moves its latents.
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
_HALF = 2  # the decoder's residual is drawn at this many steps a cell before its last shuffle


class PointDistribution:
    """The latents of a picture, with the sampling methods that pipelines expect; there is no noise in them."""

    def __init__(self, latents: Tensor) -> None:
        self.mean = latents

    def mode(self) -> Tensor:
        """Return the latents."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return the latents: this autoencoder is deterministic, so every sample is the mode."""
        return self.mean


def _conv(inside: int, outside: int, size: int = 3) -> nn.Conv2d:
    """Return a convolution that continues the border outwards instead of darkening it."""
    return nn.Conv2d(inside, outside, size, padding=size // 2, padding_mode="replicate")


class _Block(nn.Module):
    """Two convolutions around which the input passes unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_conv(channels, channels), nn.SiLU(), _conv(channels, channels), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.layers(x))


class PatchAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """An autoencoder with the contract of a diffusers VAE: pictures in -1..1, latents of unit size.

    Args:
        latent_channels: channels of a latent cell.
        hidden_channels: width of the residual networks at cell resolution.
        fine_channels: width of the decoder's residual at half-cell resolution.
        fine_blocks: how many blocks it has there.
        pixel_channels: width of what the decoder does at last, pixel by pixel: it evens out its own grid; 0: nothing.

    Rarely needed:
        block_out_channels: only its length means something: pipelines read the cell size (2 ** (length - 1) px) off it.
        scaling_factor: what pipelines multiply latents with; the codec's own scale is already right.
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
        """Return the latents (b, c, H / 8, W / 8) of pictures (b, 3, H, W) in -1..1, as `.latent_dist`."""
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
        """Return the pictures (b, 3, H, W), about -1..1, of latents (b, c, H / 8, W / 8), as `.sample`.

        `generator` is part of the contract of a VAE; nothing here is random.
        """
        picture = F.pixel_shuffle(self.linear_decoder(z), self.cell) + self.residual_decoder(z)
        if self.finish is not None:
            picture = picture + self.finish(picture)
        return DecoderOutput(sample=picture) if return_dict else (picture,)

    def forward(self, x: Tensor) -> Tensor:
        """Return pictures after encoding and decoding, both (b, 3, H, W)."""
        (picture,) = self.decode(self.encode(x).latent_dist.mode(), return_dict=False)
        return picture
