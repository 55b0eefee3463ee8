"""Encoded prompts and reference images: each is encoded once, and all are padded to one length."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from synccontrol.errors import ConfigError
from synccontrol.families.base import PromptEmbeds

# A prompt and the reference image of the IP-Adapters.
PromptInput: TypeAlias = tuple[str | PromptEmbeds, Image.Image | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConditioning:
    """The text and image conditioning of several prompts or windows, one row each."""

    states: Tensor  # text encoder states, (n, tokens, features)
    # diffusers' `added_cond_kwargs`, (n, ...) each
    added: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    references: Sequence[Tensor] = ()  # image embeddings of each IP-Adapter, (n, images, ...)

    @classmethod
    def concatenate(cls, texts: "Sequence[TextConditioning]") -> "TextConditioning":
        """Concatenate the rows of several conditionings."""
        added = {name: torch.cat([text.added[name] for text in texts]) for name in texts[0].added}
        references = [torch.cat(embeds) for embeds in zip(*(text.references for text in texts), strict=True)]
        return cls(states=torch.cat([text.states for text in texts]), added=added, references=references)

    def __getitem__(self, rows: Sequence[int]) -> "TextConditioning":
        added = {name: table[rows] for name, table in self.added.items()}
        return TextConditioning(
            states=self.states[rows], added=added, references=[embeds[rows] for embeds in self.references]
        )

    def padded_to(self, length: int, filler: Tensor) -> "TextConditioning":
        """Pad the states to `length` tokens with the states of an empty prompt.

        States of zeros, which stand for no text, are padded with zeros.

        Args:
            filler: states of an empty prompt, (1, k, features); k divides the number of missing tokens.
        """
        missing_tokens = length - self.states.shape[1]
        padding = filler.expand(len(self.states), -1, -1).repeat(1, missing_tokens // filler.shape[1], 1)
        states = torch.cat([self.states, padding * bool(self.states.any())], dim=1)
        return dataclasses.replace(self, states=states)

    def network_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of diffusers' networks."""
        references = {"image_embeds": list(self.references)} if self.references else {}
        return {"encoder_hidden_states": self.states, "added_cond_kwargs": {**self.added, **references} or None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptTable:
    """The encoded prompts of all windows. Windows with the same prompt share a row."""

    table: TextConditioning
    rows: Sequence[int]  # row of each window

    def __call__(self, views: Sequence[int]) -> TextConditioning:
        """Return the conditioning of some windows, by index."""
        return self.table[[self.rows[view] for view in views]]


def encode_prompts(
    sides: Sequence[tuple[Sequence[PromptInput], Callable[[PromptInput], TextConditioning]]],
    empty: Callable[[], Tensor],
) -> list[PromptTable]:
    """Encode each distinct prompt once, and pad all to the longest.

    Args:
        sides: for each guidance side, the prompts of all windows and the function that encodes one.
        empty: returns the states of an empty prompt, the padding.

    Raises:
        ConfigError: a prompt cannot be padded to the common length.
    """
    inputs_by_key = [
        {_prompt_key(prompt_input): prompt_input for prompt_input in window_inputs} for window_inputs, _ in sides
    ]
    texts = [
        {key: encode(prompt_input) for key, prompt_input in inputs.items()}
        for inputs, (_, encode) in zip(inputs_by_key, sides, strict=True)
    ]
    lengths = {text.states.shape[1] for side in texts for text in side.values()}
    if len(lengths) > 1:
        filler = empty()
        if any((max(lengths) - length) % filler.shape[1] for length in lengths):
            raise ConfigError(
                f"prompts are {', '.join(map(str, sorted(lengths)))} tokens long, and differ by no multiple of "
                f"{filler.shape[1]}; give all embeddings in one length"
            )
        texts = [{key: text.padded_to(max(lengths), filler) for key, text in side.items()} for side in texts]
    return [
        PromptTable(
            table=TextConditioning.concatenate(list(side.values())),
            rows=[list(side).index(_prompt_key(prompt_input)) for prompt_input in window_inputs],
        )
        for side, (window_inputs, _) in zip(texts, sides, strict=True)
    ]


def _prompt_key(prompt_input: PromptInput) -> tuple[str | PromptEmbeds, int]:
    prompt, reference = prompt_input
    return prompt, id(reference)  # images have no hash
