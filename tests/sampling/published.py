"""The published algorithm, literally: slow, window by window, and independent of the package it judges.

SyncDiffusion (Lee et al., NeurIPS 2023, arXiv 2306.05178) with a ControlNet, in the order of the published programs:
for every window predict, decode, compare with the anchor, take the gradient, move the window, predict again, step
*that window*, and average the stepped windows afterwards (MultiDiffusion, arXiv 2302.08113). Nothing is batched,
cached or reused, and nothing is imported from the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]
View = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one run of the published program is told."""

    steps: int = 50  # denoising steps
    guidance_scale: float = 7.5  # 1 is no guidance
    control_scale: float = 1.0  # factor on the ControlNet's features
    control_end: float = 1.0  # fraction of the steps under control
    guess_mode: bool = False  # control on the conditional half only
    stride: int = 16  # cells between windows
    loop: bool = False  # windows wrap around the right edge
    sync_weight: float = 0.0  # gradient descent weight w of the paper
    sync_steps: int = 5  # the first steps that are synchronised
    sync_decay: float = 0.95  # factor on the weight per step
    clamp: bool = True  # keep decoded images inside [-1, 1], as published: pixels outside have no gradient
    reuse_anchor: bool = False  # for timing: skip the anchor's own gradient, which is zero, and predict it once


@dataclass(frozen=True, kw_only=True)
class Step:
    """One entry of the DDIM timetable: the alphas are cumulative products in the schedule's own float32."""

    index: int
    t: Tensor
    alpha: Tensor
    alpha_prev: Tensor
    control_scale: float


def timetable(pipe: StableDiffusionPipeline, settings: Settings) -> list[Step]:
    """Return the DDIM steps for scaled-linear betas, with leading (Stable Diffusion's) or trailing spacing."""
    config = pipe.scheduler.config
    assert config.beta_schedule == "scaled_linear"
    assert not config.rescale_betas_zero_snr
    train_steps = config.num_train_timesteps
    betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, train_steps, dtype=torch.float32) ** 2
    alphas = torch.cumprod(1 - betas, dim=0)
    final = torch.ones_like(alphas[0]) if config.set_alpha_to_one else alphas[0]
    jump = train_steps // settings.steps
    table = []
    for i in range(settings.steps):
        if config.timestep_spacing == "trailing":
            t = round(train_steps - i * train_steps / settings.steps) - 1
        else:
            t = (settings.steps - 1 - i) * jump + config.steps_offset
        controlled = (i + 1) / settings.steps <= settings.control_end
        table.append(
            Step(
                index=i,
                t=torch.tensor(t),
                alpha=alphas[t],
                alpha_prev=alphas[t - jump] if t >= jump else final,
                control_scale=settings.control_scale if controlled else 0.0,
            )
        )
    return table


def starts(size: int, window: int, stride: int) -> list[int]:
    """Return where windows begin along one axis, the last one slid to the edge."""
    places = list(range(0, size - window + 1, stride))
    return places if places[-1] + window == size else [*places, size - window]


def views(height: int, width: int, window: int, settings: Settings) -> list[View]:
    """Return (top, left) of every window in cells, row by row."""
    lefts = list(range(0, width, settings.stride)) if settings.loop else starts(width, window, settings.stride)
    return [(top, left) for top in starts(height, window, settings.stride) for left in lefts]


def columns(left: int, length: int, width: int) -> Tensor:
    """Return the column numbers of a window, around the right edge if it hangs over."""
    return torch.arange(left, left + length) % width


def map_tensor(control_map: Image.Image, dtype: torch.dtype) -> Tensor:
    """Return a control map as (1, 3, H, W) in 0..1."""
    pixels = np.asarray(control_map.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].to(dtype)


def prompt_states(pipe: StableDiffusionPipeline, prompt: str) -> Tensor:
    """Return the text encoder's hidden states, (1, tokens, features)."""
    tokens = pipe.tokenizer(
        prompt, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        states: Tensor = pipe.text_encoder(tokens.input_ids.to(pipe.text_encoder.device))[0]
    return states


class Published:
    """One run of the published program on one canvas."""

    def __init__(
        self, pipe: StableDiffusionPipeline, prompt: str, negative_prompt: str, settings: Settings, objective: Objective
    ) -> None:
        self.pipe, self.settings, self.objective = pipe, settings, objective
        self.guided = settings.guidance_scale > 1
        conditional = prompt_states(pipe, prompt)
        self.text = torch.cat([prompt_states(pipe, negative_prompt), conditional]) if self.guided else conditional
        self.conditional = conditional

    def control(self, z: Tensor, step: Step, crop: Tensor | None) -> dict[str, object]:
        """Return the ControlNet's features for one window as the UNet's keyword arguments; none without a map."""
        if crop is None:
            return {}
        only_conditional = self.settings.guess_mode and self.guided
        halves = 2 if self.guided and not only_conditional else 1
        down, mid = self.pipe.controlnet(
            torch.cat([z] * halves),
            step.t,
            encoder_hidden_states=self.conditional if only_conditional else self.text,
            controlnet_cond=torch.cat([crop] * halves),
            conditioning_scale=step.control_scale,
            guess_mode=self.settings.guess_mode,
            return_dict=False,
        )
        if only_conditional:
            down = [torch.cat([torch.zeros_like(feature), feature]) for feature in down]
            mid = torch.cat([torch.zeros_like(mid), mid])
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}

    def predict(self, z: Tensor, step: Step, crop: Tensor | None) -> Tensor:
        """Return the network's guided prediction for one window."""
        prediction: Tensor = self.pipe.unet(
            torch.cat([z] * 2) if self.guided else z,
            step.t,
            encoder_hidden_states=self.text,
            return_dict=False,
            **self.control(z, step, crop),
        )[0]
        if not self.guided:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        return unconditional + self.settings.guidance_scale * (conditional - unconditional)

    def clean(self, z: Tensor, prediction: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Return (x0, eps) of one window: DDIM (arXiv 2010.02502) equation 9, and its v-prediction form."""
        signal, noise = step.alpha**0.5, (1 - step.alpha) ** 0.5
        if self.pipe.scheduler.config.prediction_type == "v_prediction":
            return signal * z - noise * prediction, signal * prediction + noise * z
        return (z - noise * prediction) / signal, prediction

    def ddim(self, z: Tensor, prediction: Tensor, step: Step) -> Tensor:
        """Return one window one step cleaner: DDIM equation 12 with eta 0."""
        x0, eps = self.clean(z, prediction, step)
        return step.alpha_prev**0.5 * x0 + (1 - step.alpha_prev) ** 0.5 * eps

    def picture(self, z: Tensor, prediction: Tensor, step: Step) -> Tensor:
        """Return the decoded clean estimate of one window."""
        x0, _ = self.clean(z, prediction, step)
        picture: Tensor = self.pipe.vae.decode(x0 / self.pipe.vae.config.scaling_factor, return_dict=False)[0]
        return picture.clamp(-1, 1) if self.settings.clamp else picture

    def descend(self, z: Tensor, step: Step, crop: Tensor | None, anchor: Tensor) -> Tensor:
        """Return one window moved down the gradient of its distance to the anchor's image."""
        moving = z.clone().requires_grad_()
        loss = self.objective(self.picture(moving, self.predict(moving, step, crop), step), anchor)
        (gradient,) = torch.autograd.grad(loss.sum(), moving)
        moved: Tensor = z - self.settings.sync_weight * self.settings.sync_decay**step.index * gradient
        return moved

    def run(self, noise: Tensor, control_map: Tensor | None) -> Tensor:
        """Return the final latents, (1, c, h, w), from unit-variance noise and a map of the whole canvas."""
        window, cell = self.pipe.unet.config.sample_size, self.pipe.vae_scale_factor
        height, width = noise.shape[-2:]
        places = views(height, width, window, self.settings)
        anchor_place = len(places) // 2
        crops: list[Tensor | None] = [None] * len(places)
        if control_map is not None:
            crops = [
                control_map[:, :, top * cell : (top + window) * cell][
                    ..., columns(left * cell, window * cell, width * cell)
                ]
                for top, left in places
            ]
        latent = noise
        for step in timetable(self.pipe, self.settings):
            value, count = torch.zeros_like(latent), torch.zeros_like(latent)
            synced = self.settings.sync_weight > 0 and step.index < self.settings.sync_steps
            cut = [latent[:, :, top : top + window][..., columns(left, window, width)] for top, left in places]
            if synced:
                with torch.no_grad():
                    anchor_z = cut[anchor_place]
                    anchor_prediction = self.predict(anchor_z, step, crops[anchor_place])
                    anchor = self.picture(anchor_z, anchor_prediction, step)
            for j, (top, left) in enumerate(places):
                z, reused = cut[j], synced and self.settings.reuse_anchor and j == anchor_place
                if synced and not reused:
                    moved = self.descend(z, step, crops[j], anchor)
                    z = z if j == anchor_place else moved
                with torch.no_grad():
                    prediction = anchor_prediction if reused else self.predict(z, step, crops[j])
                    stepped = self.ddim(z, prediction, step)
                across = columns(left, window, width)
                value[:, :, top : top + window, across] += stepped
                count[:, :, top : top + window, across] += 1
            latent = value / count
        return latent
