"""Base of the UNet families: ControlNets, UNet and guidance."""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from synccontrol.errors import ConfigError, ModelError
from synccontrol.families import checkpoints, ip_adapter, prompt_weights
from synccontrol.families.base import AbstractFamily, Crops, PromptEmbeds, WindowCondition, control_scales
from synccontrol.families.prompt_encoding import PromptInput, PromptTable, TextConditioning, encode_prompts
from synccontrol.families.prompt_weights import ClipEncoder
from synccontrol.preprocess.hub import quiet_libraries
from synccontrol.sampling.batching import Note
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import NoiseLevel
from synccontrol.spec.settings import Geometry, SamplingConfig

EMBEDDING_BUDGET = 2**28  # bytes of control embeddings that stay on the device for one image


class ControlEmbeddings:
    """A ControlNet's embeddings of the windows' crops, which do not depend on the timestep.

    Embeddings are computed on first use and cached within the budget; the rest is computed again at every step.

    Args:
        embed: crops (1, 3, H, W) in 0..1 to embeddings (1, c, h, w).
        crops: crops of the control map by window.
        budget: bytes to cache.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], crops: Crops, budget: int) -> None:
        self._embed = embed
        self._crops = crops
        self._remaining_bytes = budget
        self._cache: dict[int, Tensor] = {}

    @torch.no_grad()
    def __call__(self, windows: Sequence[int]) -> Tensor:
        """Return the embeddings (k, c, h, w) of windows."""
        return torch.cat([self._cache[j] if j in self._cache else self._compute(j) for j in windows])

    def _compute(self, window: int) -> Tensor:
        # One at a time: rounding must not depend on the batch.
        embedding = self._embed(self._crops([window]))
        if embedding.nbytes <= self._remaining_bytes:
            self._remaining_bytes -= embedding.nbytes
            self._cache[window] = embedding
        return embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """A ControlNet and its control maps: one, or any number for a union ControlNet."""

    net: Any
    embeddings: Sequence[ControlEmbeddings]  # one per map
    types: Sequence[int] = ()  # of a union ControlNet: its index of each map's control type

    def residuals(
        self,
        z: Tensor,
        level: NoiseLevel,
        text: TextConditioning,
        windows: Sequence[int],
        scales: Sequence[float],
        guess_mode: bool,
    ) -> tuple[list[Tensor], Tensor]:
        """Return the residuals of the UNet's down blocks and of its middle block.

        Args:
            z: the windows (k, c, h, w), or all of them twice.
            level: their noise level.
            text: their text conditioning.
            windows: their indices (k).
            scales: scale of each map.
            guess_mode: deep residuals count more than shallow ones.
        """
        embeddings = [torch.cat([embedding(windows)] * (len(z) // len(windows))) for embedding in self.embeddings]
        options: dict[str, Any] = {"guess_mode": guess_mode, "return_dict": False}
        if not self.types:
            options |= {"controlnet_cond": embeddings[0], "conditioning_scale": scales[0], **text.network_arguments()}
            down, mid = self.net(z, level.t, **options)
            return down, mid
        # A union's attention spans its batch, so each window is a batch of its own, as an image in its pipeline.
        outputs = []
        for rows in (range(start, len(z), len(windows)) for start in range(len(windows))):
            options |= self._union_arguments(z[rows], scales) | text[rows].network_arguments()
            outputs.append(
                self.net(z[rows], level.t, controlnet_cond=[embedding[rows] for embedding in embeddings], **options)
            )
        down = [torch.stack(blocks, dim=1).flatten(0, 1) for blocks in zip(*(down for down, _ in outputs), strict=True)]
        return down, torch.stack([mid for _, mid in outputs], dim=1).flatten(0, 1)

    def _union_arguments(self, z: Tensor, scales: Sequence[float]) -> dict[str, Any]:
        """Return the extra arguments of a union ControlNet."""
        types = torch.zeros(self.net.config.num_control_type, dtype=z.dtype, device=z.device)
        types[list(self.types)] = 1
        return {
            "control_type": types.expand(len(z), -1),
            "control_type_idx": list(self.types),
            "conditioning_scale": list(scales),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetPredict:
    """The prediction function of one image; implements `Predict`."""

    unet: Any
    controls: Sequence[Control]
    windows: Sequence[int]  # of each view
    prompts: Sequence[PromptTable]  # unconditional and conditional; without guidance the latter only
    timestep_cond: Tensor | None  # (1, c), embedded guidance scale of guidance-distilled models
    inpaint_channels: Tensor | None  # (n, c, h, w), extra input channels of an inpainting UNet
    sampling: SamplingConfig
    steps: int

    def __call__(self, z: Tensor, level: NoiseLevel, views: Sequence[int]) -> Tensor:
        side_prompts = self.prompts if self.sampling.guided(level.index, self.steps) else self.prompts[-1:]
        texts = [prompts(views) for prompts in side_prompts]
        inputs = torch.cat([z.to(self.unet.dtype)] * len(texts))
        down, mid = self._control(inputs, texts, level, [self.windows[view] for view in views])
        timestep_cond = self.timestep_cond.expand(len(inputs), -1) if self.timestep_cond is not None else None
        if self.inpaint_channels is not None:
            inputs = torch.cat([inputs, self.inpaint_channels[list(views)].repeat(len(texts), 1, 1, 1)], dim=1)
        prediction: Tensor = self.unet(
            inputs,
            level.t,
            timestep_cond=timestep_cond,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
            **TextConditioning.concatenate(texts).network_arguments(),
        )[0]
        prediction = prediction.to(z.dtype)
        if len(texts) == 1:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        guided = unconditional + self.sampling.guidance_scale * (conditional - unconditional)
        rescale = self.sampling.guidance_rescale
        return rescale_noise_cfg(guided, conditional, rescale) if rescale else guided  # per window

    def _control(
        self, z: Tensor, texts: Sequence[TextConditioning], level: NoiseLevel, windows: Sequence[int]
    ) -> tuple[list[Tensor] | None, Tensor | None]:
        """Return the sum of the ControlNets' residuals for the UNet's down blocks and for its middle block."""
        map_count = sum(len(control.embeddings) for control in self.controls)
        scales = iter(control_scales(self.sampling, level.index, self.steps, map_count) if map_count else ())
        down: list[Tensor] | None = None
        mid: Tensor | None = None
        for control in self.controls:
            own_scales = [next(scales) for _ in control.embeddings]
            if own_scales == [0]:  # a union of several maps applies scales inside: at 0 it still adds residuals of z
                continue
            net_down, net_mid = self._residuals(control, z, texts, level, windows, own_scales)
            down = net_down if down is None else [a + b for a, b in zip(down, net_down, strict=True)]
            mid = net_mid if mid is None else mid + net_mid
        return down, mid

    def _residuals(
        self,
        control: Control,
        z: Tensor,
        texts: Sequence[TextConditioning],
        level: NoiseLevel,
        windows: Sequence[int],
        scales: Sequence[float],
    ) -> tuple[list[Tensor], Tensor]:
        guess_mode = self.sampling.guess_mode or control.net.config.global_pool_conditions
        if not guess_mode or len(texts) == 1:
            return control.residuals(z, level, TextConditioning.concatenate(texts), windows, scales, guess_mode)
        down, mid = control.residuals(z.chunk(2)[1], level, texts[1], windows, scales, guess_mode)
        # The unconditional half gets no control.
        return [torch.cat([torch.zeros_like(d), d]) for d in down], torch.cat([torch.zeros_like(mid), mid])


class AbstractUNetFamily(AbstractFamily):
    """A loaded pipeline with a UNet.

    Args:
        pipe: the pipeline.
        controls: the control type of each map. Only union ControlNets need it.

    Raises:
        ModelError: the UNet is neither a text-to-image nor an inpainting one.
        ConfigError: the number of controls differs from the number of ControlNets.
    """

    def __init__(self, pipe: Any, controls: Sequence[str] = ()) -> None:
        config, channels = pipe.unet.config, pipe.vae.config.latent_channels
        self.is_inpainting_model = config.in_channels == 2 * channels + 1  # latents, mask, masked-image latents
        if config.out_channels != channels or not (self.is_inpainting_model or config.in_channels == channels):
            raise ModelError(
                f"the UNet takes {config.in_channels} channels, so it is no text-to-image or inpainting model; "
                "choose one that is"
            )
        self.pipe = pipe
        self.geometry: Geometry = checkpoints.geometry_of(config, pipe.vae.config)
        controlnet = getattr(pipe, "controlnet", None)
        self._nets: list[Any] = list(getattr(controlnet, "nets", [controlnet] if controlnet is not None else []))
        self._types = self._control_types(controls)
        self.controls = sum(len(types) for types in self._types)

    def _control_types(self, controls: Sequence[str]) -> list[Sequence[int | None]]:
        """Return the types of each ControlNet's maps: a union's own indices, or [None] for others."""
        if controls and len(controls) != len(self._nets):
            raise ConfigError(
                f"{len(controls)} controls are named for {len(self._nets)} ControlNets; name one for each"
            )
        return [[None] for _ in self._nets]

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.pipe.unet.dtype
        return dtype

    def _modules(self) -> list[nn.Module]:
        return [*super()._modules(), *self._nets]

    @contextmanager
    def _prepare_networks(self) -> Iterator[None]:
        nets = [
            net for net in dict.fromkeys(self._nets) if not isinstance(net.controlnet_cond_embedding, _EmbeddedControl)
        ]
        for net in nets:
            net.controlnet_cond_embedding = _EmbeddedControl(net.controlnet_cond_embedding)
        try:
            yield
        finally:
            for net in nets:
                net.controlnet_cond_embedding = net.controlnet_cond_embedding.original

    @torch.no_grad()
    def condition(
        self, views: Sequence[WindowCondition], crops: Sequence[Crops], sampling: SamplingConfig, steps: int, note: Note
    ) -> Predict:
        unet = self.pipe.unet
        # Guidance-distilled models (LCM) take the scale as an input and are not guided again.
        distilled = unet.config.time_cond_proj_dim is not None
        sides = [([(view.prompt, view.reference) for view in views], partial(self._encode_positive, sampling, note))]
        if sampling.guidance_scale > 1 and not distilled:
            sides.append(
                ([(view.negative_prompt, view.reference) for view in views], partial(self._encode_negative, note))
            )
        else:
            _note_unused_without_guidance(views, sampling, note)
        timestep_cond = None
        if distilled:
            scale = torch.tensor([sampling.guidance_scale - 1])
            embedding = StableDiffusionPipeline.get_guidance_scale_embedding(
                self.pipe, scale, unet.config.time_cond_proj_dim
            )
            timestep_cond = embedding.to(device=self.device, dtype=self.dtype)
        inpaint_channels = self._inpaint_channels(views, note).to(unet.dtype) if self.is_inpainting_model else None
        return UNetPredict(
            unet=unet,
            controls=self._controls(crops) if crops else [],
            windows=[view.window for view in views],
            prompts=encode_prompts(sides, lambda: self._encode_text("", note=note).states)[::-1],
            timestep_cond=timestep_cond,
            inpaint_channels=inpaint_channels,
            sampling=sampling,
            steps=steps,
        )

    def _inpaint_channels(self, views: Sequence[WindowCondition], note: Note) -> Tensor:
        """Return the extra input channels of the UNet; without a mask the whole image is inpainted."""
        if all(view.inpaint_channels is not None for view in views):
            return torch.cat([view.inpaint_channels for view in views if view.inpaint_channels is not None])
        note("the model is an inpainting model and there is no mask: the whole image is generated")
        image = torch.zeros(1, 3, *self.geometry.window_px, device=self.device, dtype=self.canvas_dtype)
        blank = self.inpaint_channels(image, torch.ones_like(image[:, :1]))
        return torch.cat([blank if view.inpaint_channels is None else view.inpaint_channels for view in views])

    def _controls(self, crops: Sequence[Crops]) -> list[Control]:
        budget, map_crops, controls = EMBEDDING_BUDGET // len(crops), iter(crops), []
        for net, types in zip(self._nets, self._types, strict=True):
            embeddings = [ControlEmbeddings(partial(self._embed_crops, net), next(map_crops), budget) for _ in types]
            controls.append(
                Control(net=net, embeddings=embeddings, types=[number for number in types if number is not None])
            )
        return controls

    @abc.abstractmethod
    def _text_encoders(self) -> list[ClipEncoder]:
        """Return the text encoders."""

    @abc.abstractmethod
    def _pipeline_embeds(self, prompt: str) -> PromptEmbeds:
        """Return the stock pipeline's embeddings of a prompt without weights, truncated to the context length."""

    @abc.abstractmethod
    def _conditioning(self, encoded: PromptEmbeds) -> TextConditioning:
        """Return the conditioning of prompt embeddings."""

    def _encode_text(self, prompt: str | PromptEmbeds, clip_skip: int = 0, *, note: Note) -> TextConditioning:
        """Return the conditioning of a prompt, from the cache if possible."""
        if not isinstance(prompt, str):
            return self._conditioning(prompt)
        conditioning: TextConditioning = self._prompt_cache(
            (prompt, clip_skip), partial(self._encode_prompt, prompt, clip_skip), note
        )
        return conditioning

    def _encode_prompt(self, prompt: str, clip_skip: int, note: Note) -> TextConditioning:
        encoders = self._text_encoders()
        self._check_clip_skip(encoders, clip_skip)
        phrases = prompt_weights.parse_prompt(prompt)
        prompt_weights.note_unknown_words(prompt_weights.plain_text(phrases), encoders[0].tokenizer, note)
        with quiet_libraries():  # a note reports prompts beyond the context length
            states, *pooled = self._pipeline_embeds(prompt_weights.plain_text(phrases))
            convert = self.pipe.maybe_convert_prompt
            weighted_states = prompt_weights.encode_phrases(phrases, encoders, convert, clip_skip, self.device, note)
        return self._conditioning((states if weighted_states is None else weighted_states, *pooled))

    def _check_clip_skip(self, encoders: Sequence[ClipEncoder], clip_skip: int) -> None:
        """Raise an error if there is no text encoder, or none with enough layers for the clip skip."""
        if any(encoder.encoder is None or encoder.tokenizer is None for encoder in encoders):
            raise ModelError(
                "the pipeline has no text encoder; give prompt_embeds and negative_prompt_embeds, or a whole pipeline"
            )
        max_skip = min(encoder.skippable_layers for encoder in encoders)
        if clip_skip > max_skip:
            raise ConfigError(
                f"clip skip is {clip_skip}; this model's text encoders have {max_skip} layers to leave out"
            )

    def _encode_positive(self, sampling: SamplingConfig, note: Note, prompt_input: PromptInput) -> TextConditioning:
        prompt, reference = prompt_input
        embeds = ip_adapter.encode_reference(self.pipe, reference, self.device, self.dtype)
        return replace(self._encode_text(prompt, sampling.clip_skip, note=note), references=embeds)

    def _encode_negative(self, note: Note, prompt_input: PromptInput) -> TextConditioning:
        prompt, reference = prompt_input
        text = self._negative_conditioning(
            prompt, self._encode_text(prompt, note=note)
        )  # no clip skip, as in diffusers
        return replace(
            text, references=ip_adapter.encode_reference(self.pipe, reference, self.device, self.dtype, negative=True)
        )

    def _negative_conditioning(self, prompt: str | PromptEmbeds, text: TextConditioning) -> TextConditioning:
        """Return the conditioning of a negative prompt, given its encoded text."""
        return text

    def _embed_crops(self, net: Any, crops: Tensor) -> Tensor:
        """Return a ControlNet's embedding of crops (k, 3, H, W) of its control map."""
        embedder = net.controlnet_cond_embedding.original
        if "_hf_hook" in vars(net):  # accelerate's hook brings an offloaded network to its device
            net._hf_hook.pre_forward(net)
        crops = crops.to(device=self.device, dtype=net.dtype)
        if net.config.controlnet_conditioning_channel_order == "bgr":
            crops = crops.flip(1)
        embedding: Tensor = embedder(crops)
        return embedding.to(self.device)

    def _to_vae_latents(self, x0: Tensor) -> Tensor:
        """Return clean latents scaled for the autoencoder."""
        unscaled: Tensor = x0 / self.pipe.vae.config.scaling_factor
        return unscaled

    def _from_vae_latents(self, latents: Tensor) -> Tensor:
        """Return the autoencoder's latents scaled for the networks; the inverse of `_to_vae_latents`."""
        scaled: Tensor = latents * self.pipe.vae.config.scaling_factor
        return scaled

    def encode(self, images: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents: Tensor = vae.encode(images.to(device=self.device, dtype=vae.dtype)).latent_dist.mode()
        return self._from_vae_latents(latents.to(images.dtype))

    def inpaint_channels(self, images: Tensor, new: Tensor) -> Tensor:
        cells = max_pool2d(new, self.geometry.cell)  # cells with any inpainted pixel
        masked_latents = self.encode(images * (1 - new))  # inpainted pixels are grey, as in diffusers
        return torch.cat([cells.to(masked_latents), masked_latents], dim=1)

    def decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents = self._to_vae_latents(x0).to(device=self.device, dtype=vae.dtype)
        images: Tensor = vae.decode(latents, return_dict=False)[0]
        return images.to(x0.dtype)


def _note_unused_without_guidance(views: Sequence[WindowCondition], sampling: SamplingConfig, note: Note) -> None:
    """Note settings that have no effect without guidance."""
    for name, is_set in (
        ("the negative prompt", any(view.negative_prompt != "" for view in views)),
        ("guidance rescale", sampling.guidance_rescale > 0),
    ):
        if is_set:
            note(f"{name} does nothing: there is no guidance (guidance scale 1, or a distilled model)")


class _EmbeddedControl(nn.Module):
    """Replaces a ControlNet's embedding layer during a session: its input is embedded already (`ControlEmbeddings`)."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original

    def forward(self, embedding: Tensor) -> Tensor:
        return embedding
