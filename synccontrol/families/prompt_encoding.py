"""What networks are told in words and pictures: encoded prompts, each once, all of one length."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor

from synccontrol.errors import ConfigError
from synccontrol.families.base import Encoded

Asked: TypeAlias = tuple[str | Encoded, Image.Image | None]  # a prompt, and what an IP-Adapter is shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """What the networks are told of some prompts or views, a row each."""

    states: Tensor  # (n, tokens, features), of the text encoders
    added: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)  # diffusers' added conditions, (n, ...) each
    references: Sequence[Tensor] = ()  # what each IP-Adapter is shown, (n, pictures, ...) of its image encoder

    @classmethod
    def joined(cls, texts: "Sequence[Text]") -> "Text":
        """Returns several after each other."""
        added = {name: torch.cat([text.added[name] for text in texts]) for name in texts[0].added}
        references = [torch.cat(shown) for shown in zip(*(text.references for text in texts), strict=True)]
        return cls(states=torch.cat([text.states for text in texts]), added=added, references=references)

    def __getitem__(self, rows: Sequence[int]) -> "Text":
        added = {name: table[rows] for name, table in self.added.items()}
        return Text(states=self.states[rows], added=added, references=[shown[rows] for shown in self.references])

    def lengthened(self, length: int, filler: Tensor) -> "Text":
        """Returns the text with as many tokens as `length`: states of no words (1, k, features) follow, k divides all.

        States of zeros, which stand for no text at all, go on as zeros.
        """
        missing = length - self.states.shape[1]
        filling = filler.expand(len(self.states), -1, -1).repeat(1, missing // filler.shape[1], 1)
        states = torch.cat([self.states, filling * bool(self.states.any())], dim=1)
        return dataclasses.replace(self, states=states)

    def options(self) -> dict[str, Any]:
        """Returns the arguments of diffusers' networks."""
        shown = {"image_embeds": list(self.references)} if self.references else {}
        return {"encoder_hidden_states": self.states, "added_cond_kwargs": {**self.added, **shown} or None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """The encoded prompts of the views: rows of a table, which views with the same prompt share."""

    table: Text
    rows: Sequence[int]  # of each view

    def __call__(self, views: Sequence[int]) -> Text:
        """Returns what the networks are told of views."""
        return self.table[[self.rows[view] for view in views]]


def encoded(
    sides: Sequence[tuple[Sequence[Asked], Callable[[Asked], Text]]], empty: Callable[[], Tensor]
) -> list[Prompts]:
    """Returns encoded prompts, each of which is encoded once; all are as long as the longest.

    Args:
        sides: of the guidance: what is asked for in every view, and how it is encoded.
        empty: the states of an empty prompt, which shorter prompts are filled up with.

    Raises:
        ConfigError: one cannot be filled up to the length of the others.
    """
    asked = [{_key(one): one for one in of_views} for of_views, _ in sides]
    texts = [{key: read(one) for key, one in of_side.items()} for of_side, (_, read) in zip(asked, sides, strict=True)]
    lengths = {text.states.shape[1] for side in texts for text in side.values()}
    if len(lengths) > 1:
        filler = empty()
        if any((max(lengths) - length) % filler.shape[1] for length in lengths):
            raise ConfigError(
                f"prompts are {', '.join(map(str, sorted(lengths)))} tokens long, and differ by no multiple of "
                f"{filler.shape[1]}; give all embeddings in one length"
            )
        texts = [{key: text.lengthened(max(lengths), filler) for key, text in side.items()} for side in texts]
    return [
        Prompts(table=Text.joined(list(side.values())), rows=[list(side).index(_key(one)) for one in of_views])
        for side, (of_views, _) in zip(texts, sides, strict=True)
    ]


def _key(asked: Asked) -> tuple[str | Encoded, int]:
    prompt, reference = asked
    return prompt, id(reference)  # pictures have no hash
