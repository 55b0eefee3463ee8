"""Qwen-Image, with one ControlNet or none."""

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
from synccontrol.families import checkpoints as sources
from synccontrol.families.base import Encoded
from synccontrol.families.checkpoints import Source, default_dtype
from synccontrol.families.flow_base import PATCH, AbstractFlow, Control
from synccontrol.sampling.batching import Note
from synccontrol.sampling.noise_level import Level
from synccontrol.spec.settings import Geometry

PIPELINES = ("QwenImagePipeline", "QwenImageControlNetPipeline")
HALF = torch.bfloat16  # the dtype of 16 bits that its networks run in
NATIVE = 128  # cells along one side of a picture; no configuration file says it
LONGEST = 512  # tokens of a prompt


def load(base: str, controlnets: Sequence[Source], vae: str = "", **options: Any) -> Any:
    """Returns a diffusers pipeline.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one or none, a folder or hub id, or a pair of it and a subfolder.
        vae: a folder or hub id of an autoencoder to use in place of the base model's.
        options: of `from_pretrained` (dtype, local_files_only, ...).

    Raises:
        ModelError: there are several ControlNets.
    """
    own = sources.reading(options)
    parts = {"vae": checkpoints.autoencoder(vae, base, **own)} if vae else {}
    if not controlnets:
        return sources.weights(QwenImagePipeline, base, **parts, **options)
    parts["controlnet"] = sources.weights(QwenImageControlNetModel, flow_base.only(controlnets, "Qwen-Image"), **own)
    return sources.weights(QwenImageControlNetPipeline, base, **parts, **options)


def geometry(base: str, **options: Any) -> Geometry:
    """Returns the native sizes of a model; options as those of `load`."""
    return _geometry(sources.component_config(AutoencoderKLQwenImage, (base, "vae"), **options), NATIVE)


def blank(base: str, controlnets: Sequence[Source], dtype: torch.dtype, vae: str = "", **options: Any) -> Any:
    """Returns the pipeline that a model's configuration files describe: no weights are read, no words are known.

    Under a `FakeTensorMode` it takes no memory, so that its work can be rehearsed. Arguments as for `load`.
    """
    parts = flow_base.blank_parts(base, dtype, options, vae)
    if not controlnets:
        return QwenImagePipeline(**parts)
    config = sources.component_config(QwenImageControlNetModel, flow_base.only(controlnets, "Qwen-Image"), **options)
    with default_dtype(dtype):
        return QwenImageControlNetPipeline(**parts, controlnet=QwenImageControlNetModel.from_config(config))


def _geometry(vae: Mapping[str, Any], side: int) -> Geometry:
    return Geometry(window=(side, side), cell=2 ** len(vae["temperal_downsample"]), channels=vae["z_dim"])


def pack(z: Tensor) -> Tensor:
    """Returns windows (k, c, h, w) as tokens (k, h w / 4, 4 c), each a patch of 2 x 2 cells, row by row."""
    return pixel_unshuffle(z, PATCH).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, h: int, w: int) -> Tensor:
    """Returns tokens (k, h w / 4, 4 c) as windows (k, c, h, w): the inverse of `pack`."""
    return pixel_shuffle(tokens.transpose(1, 2).reshape(len(tokens), -1, h // PATCH, w // PATCH), PATCH)


def rescaled(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Returns the guided prediction (k, c, h, w), every token as long as the conditional one (the pipeline's rule)."""
    found = flow_base.guided(conditional, unconditional, scale)
    wanted, length = (pixel_unshuffle(one, PATCH).norm(dim=1, keepdim=True) for one in (conditional, found))
    ratio: Tensor = (wanted / length).repeat_interleave(PATCH, -1).repeat_interleave(PATCH, -2)
    return found * ratio


class Family(AbstractFlow):
    """A loaded Qwen-Image pipeline.

    Its autoencoder clamps what it decodes, so that saturated pixels give sync no gradient.

    Args:
        pipe: a `QwenImagePipeline` or `QwenImageControlNetPipeline`.
        controls: the control type of its map, which the ControlNet need not be told.

    Raises:
        ConfigError: there are several controls, or one without a ControlNet.
        ModelError: its transformer takes the guidance as an input, or its ControlNet is several or one for repainting.
    """

    def __init__(self, pipe: Any, controls: Sequence[str] = ()) -> None:
        super().__init__(pipe, _geometry(pipe.vae.config, pipe.default_sample_size), controls, rescaled)
        if pipe.transformer.config.guidance_embeds:
            raise ModelError("the transformer takes the guidance as an input, which is not supported; choose another")
        plain = isinstance(self._net, QwenImageControlNetModel) and not self._net.config.extra_condition_channels
        if self._net is not None and not plain:
            raise ModelError("the ControlNet is several, or one for repainting; give the pipeline a single plain one")

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        if self.pipe.transformer.is_cache_enabled:
            raise ModelError(
                "the transformer keeps a cache between steps, which windows would share; call "
                "pipe.transformer.disable_cache()"
            )
        yield

    def _encode(self, prompt: str, note: Note) -> Tensor:
        pipe, head = self.pipe, self.pipe.prompt_template_encode_start_idx  # tokens that are dropped again
        flow_base.note_cut(pipe.tokenizer, pipe.prompt_template_encode.format(prompt), head + LONGEST, note)
        states: Tensor = pipe.encode_prompt(prompt, self.device, max_sequence_length=LONGEST)[0]
        return states[0]

    def blank_prompt(self) -> Encoded:
        return (torch.zeros(1, LONGEST, self.pipe.transformer.config.joint_attention_dim),)

    def _latents(self, pictures: Tensor) -> Tensor:
        mean, std = self._statistics(pictures)
        latents: Tensor = self.pipe.vae.encode(pictures.unsqueeze(2)).latent_dist.mode()
        return (latents.squeeze(2) - mean) / std

    def decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        mean, std = self._statistics(x0)
        latents = (x0 * std + mean).to(device=self.device, dtype=vae.dtype).unsqueeze(2)
        pictures: Tensor = vae.decode(latents, return_dict=False)[0].squeeze(2)
        return pictures.to(x0.dtype)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and deviation of the autoencoder's latents, (1, c, 1, 1)."""
        config = self.pipe.vae.config
        mean, std = (like.new_tensor(value).reshape(1, -1, 1, 1) for value in (config.latents_mean, config.latents_std))
        return mean, std

    def _velocities(
        self, z: Tensor, level: Level, captions: Sequence[Sequence[Tensor]], control: Control | None
    ) -> Sequence[Tensor]:
        k, _, h, w = z.shape
        t = torch.full((k,), level.t, device=z.device, dtype=self.canvas_dtype) / 1000
        shapes = [[(1, h // PATCH, w // PATCH)]] * k  # every window is a whole picture
        window = {"hidden_states": pack(z), "timestep": t, "img_shapes": shapes, "return_dict": False}
        texts = [_joined(of_windows) for of_windows in captions]
        residuals = None
        if control is not None:  # it hears the prompt alone, and acts on both
            hint = pack(control.latents)
            residuals = self._net(controlnet_cond=hint, conditioning_scale=control.scale, **window, **texts[0])
        transformer = self.pipe.transformer
        found = (transformer(controlnet_block_samples=residuals, **window, **text)[0] for text in texts)
        return [unpack(tokens, h, w) for tokens in found]


def _joined(captions: Sequence[Tensor]) -> dict[str, Tensor | None]:
    """Returns captions (tokens, features) as the networks take them: padded to the longest, with a mask."""
    states, lengths = pad_sequence(list(captions), batch_first=True), [len(caption) for caption in captions]
    if len(set(lengths)) == 1:
        return {"encoder_hidden_states": states, "encoder_hidden_states_mask": None}
    mask = torch.arange(states.shape[1])[None] < torch.tensor(lengths)[:, None]
    return {"encoder_hidden_states": states, "encoder_hidden_states_mask": mask.to(states.device)}
