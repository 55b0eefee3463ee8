"""Stable Diffusion XL, with any number of ControlNets or none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from preprocess.silence import silent
from synccontrol.config import Geometry
from synccontrol.errors import ModelError
from synccontrol.families import checkpoints
from synccontrol.families.base import Encoded
from synccontrol.families.unet import Text
from synccontrol.families.unet_family import AbstractUNetFamily
from synccontrol.sampling.batches import Note

PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLControlNetPipeline")

TIME_IDS = 6  # height, width, top, left, height, width

_KINDS = (StableDiffusionXLPipeline, StableDiffusionXLControlNetPipeline)
_ENCODERS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


def load(base: str, controlnets: Sequence[str | tuple[str, str]], **options: Any) -> Any:
    """Returns a diffusers pipeline.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one per control, a folder or hub id, or a pair of it and a subfolder.
        options: of `from_pretrained` (dtype, local_files_only, ...).
    """
    return checkpoints.load(_KINDS, base, controlnets, **options)


def geometry(base: str, **options: Any) -> Geometry:
    """Returns the native sizes that a model's configuration files state; options as those of `load`."""
    return checkpoints.geometry(base, **options)


def blank(base: str, controlnets: Sequence[str | tuple[str, str]], dtype: torch.dtype, **options: Any) -> Any:
    """Returns the pipeline that a model's configuration files describe: no weights are read, no words are known.

    Under a `FakeTensorMode` it takes no memory, so that its work can be rehearsed. An autoencoder that decodes in
    float32 is float32 from the start. Arguments as for `load`.
    """
    parts = checkpoints.blank_parts(base, controlnets, dtype, _ENCODERS, upcast=True, **options)
    plain, controlled = _KINDS
    return (controlled if controlnets else plain)(**parts, tokenizer=None, tokenizer_2=None)


class Family(AbstractUNetFamily):
    """A loaded `StableDiffusionXLPipeline` or `StableDiffusionXLControlNetPipeline`.

    Every window is told that it is a whole picture of its own size, nothing cut off. An empty negative prompt is none,
    which for models with `force_zeros_for_empty_prompt` (the published ones) means zeros in place of an encoded text,
    as in the diffusers pipelines where no negative prompt is given; a space (`" "`) is an encoded empty text.

    A float16 autoencoder with `force_upcast` is float32 from the first decoding in a session to the session's end.

    Raises:
        ModelError: it is a refiner, which draws no picture from the start.
    """

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        config = pipe.unet.config
        pooled = pipe.text_encoder_2.config.projection_dim
        if (
            config.addition_embed_type != "text_time"
            or TIME_IDS * config.addition_time_embed_dim + pooled != config.projection_class_embeddings_input_dim
        ):
            raise ModelError(
                "the UNet is told something else than a size and a prompt; choose a base model, no refiner"
            )

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        vae, dtype = self.pipe.vae, self.pipe.vae.dtype
        with super()._prepared():
            try:
                yield
            finally:
                if vae.dtype != dtype:
                    vae.to(dtype=dtype)

    def _text(self, prompt: str | Encoded, note: Note) -> Text:
        if isinstance(prompt, str):
            self._note_cut(prompt, self.pipe.tokenizer_2, note)
            with silent():  # what is cut is said above
                states, _, pooled, _ = self.pipe.encode_prompt(
                    prompt, device=self.device, do_classifier_free_guidance=False
                )
        else:
            states, pooled = prompt
        height, width = self.geometry.window_px
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[height, width, 0, 0, height, width]])}
        return Text(
            states=states.to(device=self.device, dtype=self.dtype),
            added={name: table.to(device=self.device, dtype=self.dtype) for name, table in added.items()},
        )

    def _negative_text(self, prompt: str | Encoded, note: Note) -> Text:
        text = self._text(prompt, note)
        if prompt != "" or not self.pipe.config.force_zeros_for_empty_prompt:
            return text
        pooled = torch.zeros_like(text.added["text_embeds"])
        return Text(states=torch.zeros_like(text.states), added={**text.added, "text_embeds": pooled})

    def blank_prompt(self) -> Encoded:
        encoder = self.pipe.text_encoder_2.config
        states = torch.zeros(1, encoder.max_position_embeddings, self.pipe.unet.config.cross_attention_dim)
        return states, torch.zeros(1, encoder.projection_dim)

    def _unscaled(self, x0: Tensor) -> Tensor:
        config = self.pipe.vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return super()._unscaled(x0)
        mean, std = (torch.tensor(value, device=x0.device, dtype=x0.dtype).view(1, -1, 1, 1) for value in (mean, std))
        unscaled: Tensor = x0 * std / config.scaling_factor + mean
        return unscaled

    def decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        if vae.dtype == torch.float16 and vae.config.force_upcast:
            vae.to(dtype=torch.float32)  # in float16 it overflows
        return super().decode(x0)
