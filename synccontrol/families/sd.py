"""Stable Diffusion 1.x and 2.x, with any number of ControlNets or none."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionControlNetPipeline, StableDiffusionPipeline
from transformers import CLIPTextModel

from synccontrol.families import checkpoints
from synccontrol.families.base import Encoded
from synccontrol.families.prompt_encoding import Text
from synccontrol.families.prompt_weights import TOKENS, Reader
from synccontrol.families.unet_base import AbstractUNetFamily
from synccontrol.spec.settings import Geometry

PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetInpaintPipeline",
)
HALF = torch.float16  # the dtype of 16 bits that its networks run in

_KINDS = checkpoints.Kinds(
    StableDiffusionPipeline, StableDiffusionControlNetPipeline, encoders={"text_encoder": CLIPTextModel}
)
_UNCHECKED = {"safety_checker": None, "requires_safety_checker": False}


def load(base: str, controlnets: Sequence[str | tuple[str, str]], **options: Any) -> Any:
    """Returns a diffusers pipeline, without safety checker.

    Args:
        base: a diffusers folder or hub id.
        controlnets: one per control, a folder or hub id, or a pair of it and a subfolder.
        options: of `from_pretrained` (dtype, local_files_only, ...).
    """
    return checkpoints.load(_KINDS, base, controlnets, **options | _UNCHECKED)


def geometry(base: str, **options: Any) -> Geometry:
    """Returns the native sizes that a model's configuration files state; options as those of `load`."""
    return checkpoints.geometry(base, **options)


def blank(base: str, controlnets: Sequence[str | tuple[str, str]], dtype: torch.dtype, **options: Any) -> Any:
    """Returns the pipeline that a model's configuration files describe: no weights are read, no words are known.

    Under a `FakeTensorMode` it takes no memory, so that its work can be rehearsed. Arguments as for `load`.
    """
    parts = checkpoints.blank_parts(_KINDS, base, controlnets, dtype, **options)
    return _KINDS.of(parts.get("controlnet", ()))(**parts, tokenizer=None, feature_extractor=None, **_UNCHECKED)


class Family(AbstractUNetFamily):
    """A loaded `StableDiffusionPipeline` or `StableDiffusionControlNetPipeline`."""

    def _readers(self) -> list[Reader]:
        return [Reader(tokenizer=self.pipe.tokenizer, encoder=self.pipe.text_encoder, normed=True)]

    def _stock(self, prompt: str) -> Encoded:
        return (self.pipe.encode_prompt(prompt, self.device, 1, False)[0],)

    def _told(self, encoded: Encoded) -> Text:
        (states,) = encoded
        return Text(states=states.to(device=self.device, dtype=self.dtype))

    def blank_prompt(self) -> Encoded:
        encoder = self.pipe.text_encoder
        tokens = encoder.config.max_position_embeddings if encoder is not None else TOKENS
        return (torch.zeros(1, tokens, self.pipe.unet.config.cross_attention_dim),)
