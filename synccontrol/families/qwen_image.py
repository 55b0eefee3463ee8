"""Qwen-Image with at most one ControlNet."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    QwenImageControlNetModel,
    QwenImageControlNetPipeline,
    QwenImagePipeline,
)
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from torch.nn.utils.rnn import pad_sequence

from synccontrol.errors import ModelError
from synccontrol.families import checkpoints, flow_base
from synccontrol.families.base import PromptEmbeds
from synccontrol.families.checkpoints import Source, default_dtype
from synccontrol.families.flow_base import PATCH, AbstractFlowFamily, Control
from synccontrol.sampling.batching import Note
from synccontrol.sampling.noise_level import NoiseLevel
from synccontrol.spec.settings import Geometry

PIPELINES = ("QwenImagePipeline", "QwenImageControlNetPipeline")
HALF = torch.bfloat16  # 16-bit dtype of its networks
NATIVE_CELLS = 128  # latent cells along one side of a native image; no configuration file states it
MAX_PROMPT_TOKENS = 512


def load(base: str, controlnets: Sequence[Source], vae: str = "", **options: Any) -> Any:
    """Load a diffusers pipeline.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one or none, a folder or hub id, or a pair of it and a subfolder.
        vae: a folder or hub id of an autoencoder that replaces the base model's.
        options: of `from_pretrained` (dtype, local_files_only, ...).

    Raises:
        ModelError: there are several ControlNets.
    """
    shared = checkpoints.shared_options(options)
    components = {"vae": checkpoints.autoencoder(vae, base, **shared)} if vae else {}
    if not controlnets:
        return checkpoints.load_weights(QwenImagePipeline, base, **components, **options)
    components["controlnet"] = checkpoints.load_weights(
        QwenImageControlNetModel, flow_base.single_controlnet(controlnets, "Qwen-Image"), **shared
    )
    return checkpoints.load_weights(QwenImageControlNetPipeline, base, **components, **options)


def geometry(base: str, **options: Any) -> Geometry:
    """Return the native sizes of a model; options are those of `load`."""
    return _geometry(checkpoints.component_config(AutoencoderKLQwenImage, (base, "vae"), **options), NATIVE_CELLS)


def blank(base: str, controlnets: Sequence[Source], dtype: torch.dtype, vae: str = "", **options: Any) -> Any:
    """Return the pipeline without weights or tokenizers, built from configuration files.

    Under a `FakeTensorMode` it takes no memory, which the memory estimate uses. Arguments are those of `load`.
    """
    parts = flow_base.blank_parts(base, dtype, options, vae)
    if not controlnets:
        return QwenImagePipeline(**parts)
    config = checkpoints.component_config(
        QwenImageControlNetModel, flow_base.single_controlnet(controlnets, "Qwen-Image"), **options
    )
    with default_dtype(dtype):
        return QwenImageControlNetPipeline(**parts, controlnet=QwenImageControlNetModel.from_config(config))


def _geometry(vae: Mapping[str, Any], side: int) -> Geometry:
    return Geometry(window=(side, side), cell=2 ** len(vae["temperal_downsample"]), channels=vae["z_dim"])


def pack(z: Tensor) -> Tensor:
    """Return windows (k, c, h, w) as tokens (k, h w / 4, 4 c), row by row; a token is a patch of 2 x 2 cells."""
    return pixel_unshuffle(z, PATCH).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, h: int, w: int) -> Tensor:
    """Return tokens (k, h w / 4, 4 c) as windows (k, c, h, w); the inverse of `pack`."""
    return pixel_shuffle(tokens.transpose(1, 2).reshape(len(tokens), -1, h // PATCH, w // PATCH), PATCH)


def apply_normalized_guidance(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return the guided prediction (k, c, h, w), with every token rescaled to the norm of the conditional token.

    The diffusers pipeline does the same.
    """
    guided = flow_base.apply_guidance(conditional, unconditional, scale)
    target_length, guided_length = (
        pixel_unshuffle(prediction, PATCH).norm(dim=1, keepdim=True) for prediction in (conditional, guided)
    )
    ratio: Tensor = (target_length / guided_length).repeat_interleave(PATCH, -1).repeat_interleave(PATCH, -2)
    return guided * ratio


class Family(AbstractFlowFamily):
    """A loaded Qwen-Image pipeline.

    Its autoencoder clamps decoded images, so saturated pixels give sync no gradient.

    Args:
        pipe: a `QwenImagePipeline` or `QwenImageControlNetPipeline`.
        controls: the control type of its map, which the ControlNet does not need.

    Raises:
        ConfigError: there are several controls, or one without a ControlNet.
        ModelError: the transformer takes the guidance scale as an input, or the pipeline has several ControlNets or an
            inpainting one.
    """

    def __init__(self, pipe: Any, controls: Sequence[str] = ()) -> None:
        super().__init__(
            pipe, _geometry(pipe.vae.config, pipe.default_sample_size), controls, apply_normalized_guidance
        )
        if pipe.transformer.config.guidance_embeds:
            raise ModelError(
                "the transformer takes the guidance scale as an input, which is not supported; choose another"
            )
        plain = (
            isinstance(self._controlnet, QwenImageControlNetModel)
            and not self._controlnet.config.extra_condition_channels
        )
        if self._controlnet is not None and not plain:
            raise ModelError(
                "the pipeline has several ControlNets, or an inpainting one; give it a single plain ControlNet"
            )

    @contextmanager
    def _prepare_networks(self) -> Iterator[None]:
        if self.pipe.transformer.is_cache_enabled:
            raise ModelError(
                "the transformer has a cache between steps, which windows would share; call "
                "pipe.transformer.disable_cache()"
            )
        yield

    def _encode(self, prompt: str, note: Note) -> Tensor:
        pipe = self.pipe
        longest = pipe.prompt_template_encode_start_idx + MAX_PROMPT_TOKENS  # with the template, which is dropped later
        flow_base.note_truncated_prompt(pipe.tokenizer, pipe.prompt_template_encode.format(prompt), longest, note)
        states: Tensor = pipe.encode_prompt(prompt, self.device, max_sequence_length=MAX_PROMPT_TOKENS)[0]
        return states[0]

    def blank_prompt(self) -> PromptEmbeds:
        return (torch.zeros(1, MAX_PROMPT_TOKENS, self.pipe.transformer.config.joint_attention_dim),)

    def _encode_images(self, images: Tensor) -> Tensor:
        mean, std = self._statistics(images)
        latents: Tensor = self.pipe.vae.encode(images.unsqueeze(2)).latent_dist.mode()
        return (latents.squeeze(2) - mean) / std

    def decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        mean, std = self._statistics(x0)
        latents = (x0 * std + mean).to(device=self.device, dtype=vae.dtype).unsqueeze(2)
        images: Tensor = vae.decode(latents, return_dict=False)[0].squeeze(2)
        return images.to(x0.dtype)

    def _statistics(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the autoencoder's latents, (1, c, 1, 1)."""
        config = self.pipe.vae.config
        mean, std = (
            reference.new_tensor(value).reshape(1, -1, 1, 1) for value in (config.latents_mean, config.latents_std)
        )
        return mean, std

    def _predict_velocities(
        self, z: Tensor, level: NoiseLevel, captions: Sequence[Sequence[Tensor]], control: Control | None
    ) -> Sequence[Tensor]:
        k, _, h, w = z.shape
        t = torch.full((k,), level.t, device=z.device, dtype=self.canvas_dtype) / 1000
        shapes = [[(1, h // PATCH, w // PATCH)]] * k  # every window is a whole image
        window = {"hidden_states": pack(z), "timestep": t, "img_shapes": shapes, "return_dict": False}
        texts = [_pad_captions(of_windows) for of_windows in captions]
        residuals = None
        if control is not None:  # computed for the prompt only, applied to both sides
            hint = pack(control.latents)
            residuals = self._controlnet(controlnet_cond=hint, conditioning_scale=control.scale, **window, **texts[0])
        transformer = self.pipe.transformer
        predictions = (transformer(controlnet_block_samples=residuals, **window, **text)[0] for text in texts)
        return [unpack(tokens, h, w) for tokens in predictions]


def _pad_captions(captions: Sequence[Tensor]) -> dict[str, Tensor | None]:
    """Return captions (tokens, features) as network arguments: padded to the longest, with a mask."""
    states, lengths = pad_sequence(list(captions), batch_first=True), [len(caption) for caption in captions]
    if len(set(lengths)) == 1:
        return {"encoder_hidden_states": states, "encoder_hidden_states_mask": None}
    mask = torch.arange(states.shape[1])[None] < torch.tensor(lengths)[:, None]
    return {"encoder_hidden_states": states, "encoder_hidden_states_mask": mask.to(states.device)}
