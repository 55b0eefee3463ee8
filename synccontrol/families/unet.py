"""The ground of families with a UNet: ControlNets, UNet and guidance, called in one place."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from synccontrol.config import SamplingConfig
from synccontrol.families.base import Crops, control_scales
from synccontrol.families.text import Prompts, Text
from synccontrol.sampling.levels import Level

EMBEDDING_BUDGET = 2**28  # bytes of control embeddings that a picture keeps on the device


class Hints:
    """A ControlNet's embeddings of what windows see of its map, which no timestep changes.

    Made when they are first needed, and kept as long as the budget lasts; the rest is made again at every step.

    Args:
        embed: crops (1, 3, H, W) in 0..1 to embeddings (1, c, h, w).
        crops: what windows see of the control map.
        budget: bytes to keep.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], crops: Crops, budget: int) -> None:
        self._embed = embed
        self._crops = crops
        self._left = budget
        self._kept: dict[int, Tensor] = {}

    @torch.no_grad()
    def __call__(self, windows: Sequence[int]) -> Tensor:
        """Returns the embeddings (k, c, h, w) of windows."""
        return torch.cat([self._kept[j] if j in self._kept else self._made(j) for j in windows])

    def _made(self, window: int) -> Tensor:
        # One at a time: rounding must not depend on the batch.
        embedding = self._embed(self._crops([window]))
        if embedding.nbytes <= self._left:
            self._left -= embedding.nbytes
            self._kept[window] = embedding
        return embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """A ControlNet, and what it follows: one map, or any number of them if it is a union."""

    net: Any
    hints: Sequence[Hints]  # one per map
    types: Sequence[int] = ()  # of a union: what each map shows, by the union's own numbers

    def residuals(
        self, z: Tensor, level: Level, text: Text, windows: Sequence[int], scales: Sequence[float], guess: bool
    ) -> tuple[list[Tensor], Tensor]:
        """Returns what it adds to the UNet's down blocks and to its middle block.

        Args:
            z: the windows (k, c, h, w), or all of them twice.
            level: their level.
            text: what they are told.
            windows: their indices (k).
            scales: how strong each map is.
            guess: whether deep residuals count more than shallow ones.
        """
        seen = [torch.cat([hints(windows)] * (len(z) // len(windows))) for hints in self.hints]
        options: dict[str, Any] = {"guess_mode": guess, "return_dict": False}
        if not self.types:
            options |= {"controlnet_cond": seen[0], "conditioning_scale": scales[0], **text.options()}
            down, mid = self.net(z, level.t, **options)
            return down, mid
        # The attention in a union goes across its batch: every window is alone there, as a picture in its pipeline is.
        parts = []
        for rows in (range(first, len(z), len(windows)) for first in range(len(windows))):
            options |= self._shown(z[rows], scales) | text[rows].options()
            parts.append(self.net(z[rows], level.t, controlnet_cond=[one[rows] for one in seen], **options))
        down = [torch.stack(blocks, dim=1).flatten(0, 1) for blocks in zip(*(down for down, _ in parts), strict=True)]
        return down, torch.stack([mid for _, mid in parts], dim=1).flatten(0, 1)

    def _shown(self, z: Tensor, scales: Sequence[float]) -> dict[str, Any]:
        """Returns what a union is told of its maps."""
        types = torch.zeros(self.net.config.num_control_type, dtype=z.dtype, device=z.device)
        types[list(self.types)] = 1
        return {
            "control_type": types.expand(len(z), -1),
            "control_type_idx": list(self.types),
            "conditioning_scale": list(scales),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetPredict:
    """The prediction of views for one picture. It is a `Predict`."""

    unet: Any
    controls: Sequence[Control]
    windows: Sequence[int]  # of each view
    prompts: Sequence[Prompts]  # unconditional and conditional; the latter alone without guidance
    timestep_cond: Tensor | None  # (1, c): the guidance scale, of models that were distilled to take it as an input
    beside: Tensor | None  # (n, c, h, w), what of each view the UNet alone sees beside its latents
    sampling: SamplingConfig
    steps: int

    def __call__(self, z: Tensor, level: Level, views: Sequence[int]) -> Tensor:
        heard = self.prompts if self.sampling.guided(level.index, self.steps) else self.prompts[-1:]
        texts = [prompts(views) for prompts in heard]
        inputs = torch.cat([z.to(self.unet.dtype)] * len(texts))
        down, mid = self._control(inputs, texts, level, [self.windows[view] for view in views])
        timestep_cond = self.timestep_cond.expand(len(inputs), -1) if self.timestep_cond is not None else None
        if self.beside is not None:
            inputs = torch.cat([inputs, self.beside[list(views)].repeat(len(texts), 1, 1, 1)], dim=1)
        prediction: Tensor = self.unet(
            inputs,
            level.t,
            timestep_cond=timestep_cond,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
            **Text.joined(texts).options(),
        )[0]
        prediction = prediction.to(z.dtype)
        if len(texts) == 1:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        guided = unconditional + self.sampling.guidance_scale * (conditional - unconditional)
        rescale = self.sampling.guidance_rescale
        return rescale_noise_cfg(guided, conditional, rescale) if rescale else guided  # of every window by itself

    def _control(
        self, z: Tensor, texts: Sequence[Text], level: Level, windows: Sequence[int]
    ) -> tuple[list[Tensor] | None, Tensor | None]:
        """Returns the sum of the ControlNets' residuals for the UNet's down blocks and its middle block."""
        maps = sum(len(control.hints) for control in self.controls)
        scales = iter(control_scales(self.sampling, level.index, self.steps, maps) if maps else ())
        down: list[Tensor] | None = None
        mid: Tensor | None = None
        for control in self.controls:
            own = [next(scales) for _ in control.hints]
            if own == [0]:  # in a union the scales of several maps act inside: at 0 it still adds what it makes of z
                continue
            net_down, net_mid = self._residuals(control, z, texts, level, windows, own)
            down = net_down if down is None else [a + b for a, b in zip(down, net_down, strict=True)]
            mid = net_mid if mid is None else mid + net_mid
        return down, mid

    def _residuals(
        self,
        control: Control,
        z: Tensor,
        texts: Sequence[Text],
        level: Level,
        windows: Sequence[int],
        scales: Sequence[float],
    ) -> tuple[list[Tensor], Tensor]:
        guess = self.sampling.guess_mode or control.net.config.global_pool_conditions
        if not guess or len(texts) == 1:
            return control.residuals(z, level, Text.joined(texts), windows, scales, guess)
        down, mid = control.residuals(z.chunk(2)[1], level, texts[1], windows, scales, guess)
        # the unprompted half is left uncontrolled
        return [torch.cat([torch.zeros_like(d), d]) for d in down], torch.cat([torch.zeros_like(mid), mid])
