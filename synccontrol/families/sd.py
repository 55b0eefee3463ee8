"""Stable Diffusion 1.x and 2.x, with any number of ControlNets or none."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionControlNetPipeline, StableDiffusionPipeline
from transformers import CLIPTextModel

from preprocess.silence import silent
from synccontrol.config import Geometry
from synccontrol.families import checkpoints
from synccontrol.families.base import Encoded
from synccontrol.families.unet import Text
from synccontrol.families.unet_family import AbstractUNetFamily
from synccontrol.sampling.batches import Note

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionControlNetPipeline")

_KINDS = (StableDiffusionPipeline, StableDiffusionControlNetPipeline)
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
    parts = checkpoints.blank_parts(base, controlnets, dtype, {"text_encoder": CLIPTextModel}, **options)
    plain, controlled = _KINDS
    return (controlled if controlnets else plain)(**parts, tokenizer=None, feature_extractor=None, **_UNCHECKED)


class Family(AbstractUNetFamily):
    """A loaded `StableDiffusionPipeline` or `StableDiffusionControlNetPipeline`."""

    def _text(self, prompt: str | Encoded, note: Note) -> Text:
        if isinstance(prompt, str):
            self._note_cut(prompt, self.pipe.tokenizer, note)
            with silent():  # what is cut is said above
                states = self.pipe.encode_prompt(prompt, self.device, 1, False)[0]
        else:
            (states,) = prompt
        return Text(states=states.to(device=self.device, dtype=self.dtype))

    def blank_prompt(self) -> Encoded:
        tokens = self.pipe.text_encoder.config.max_position_embeddings
        return (torch.zeros(1, tokens, self.pipe.unet.config.cross_attention_dim),)
