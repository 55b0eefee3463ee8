"""Prompts as people write them: weights, `(word:1.3)`, and more words than a text encoder reads at once."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from synccontrol.sampling.batching import Note
from synccontrol.sampling.noise_level import at_least_float32

_PIECES = re.compile(r"\\[()]|[()]|(?:\\(?![()])|[^\\()])+")
_WEIGHT = re.compile(r":\s*(\d+(?:\.\d*)?|\.\d+)\s*$")  # what ends a weighted phrase, before its bracket closes
TOKENS = 77  # that published CLIP text encoders read at once
_WORD_END = "</w>"  # of tokens that end a word
WHOLE_WORDS = "whole_words"  # of tokenizers: every word that the model was taught is one token


class Phrase(NamedTuple):
    """A part of a prompt."""

    text: str
    weight: float  # 1: as it is


def phrases(prompt: str) -> list[Phrase]:
    r"""Returns the parts of a prompt in which `(text:1.3)` weighs a text; weights inside each other are multiplied.

    Brackets without a number are brackets, and `\(` always is one.
    """
    parts: list[Phrase] = []
    opened: list[int] = []  # where brackets stand in `parts`
    for piece in _PIECES.findall(prompt):
        parts.append(Phrase(piece[-1] if piece[0] == "\\" and len(piece) == 2 else piece, 1.0))
        if piece == "(":
            opened.append(len(parts) - 1)
        elif piece == ")" and opened:
            start = opened.pop()
            end = _WEIGHT.search(parts[-2].text)
            if end and parts[-2].weight == 1:
                inside = [*parts[start + 1 : -2], Phrase(parts[-2].text[: end.start()], 1.0)]
                parts[start:] = [Phrase(text, weight * float(end[1])) for text, weight in inside]
    return _joined(parts)


def _joined(parts: Sequence[Phrase]) -> list[Phrase]:
    """Returns parts, those of one weight after each other as one; empty ones are left out."""
    found: list[Phrase] = []
    for part in parts:
        if found and found[-1].weight == part.weight:
            found[-1] = Phrase(found[-1].text + part.text, part.weight)
        elif part.text:
            found.append(part)
    return found or [Phrase("", 1.0)]


def plain(said: Sequence[Phrase]) -> str:
    """Returns the words of a prompt without weights."""
    return "".join(phrase.text for phrase in said)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """A CLIP text encoder with its tokenizer."""

    tokenizer: Any
    encoder: Any
    normed: bool  # whether its last norm follows the layer that is read: the last; else that before it

    @property
    def longest(self) -> int:
        """Returns how many tokens it reads at once, begin and end included."""
        length: int = self.tokenizer.model_max_length
        return length

    @property
    def layers(self) -> int:
        """Returns how many layers can be left out."""
        return int(self.encoder.config.num_hidden_layers) - (not self.normed)

    def tokens(self, text: str) -> int:
        """Returns how many tokens a text has, begin and end included."""
        return len(self.tokenizer(text, verbose=False).input_ids)

    def states(self, said: Sequence[Phrase], clip_skip: int, device: torch.device) -> Tensor:
        """Returns the states (1, n, features) of weighted phrases; n is a multiple of `longest`.

        A long text is cut between sentences, or else phrases, or else words. A weight above 1 moves states away from
        those of an empty prompt, one below 1 towards those of the prompt without the phrase (compel).
        """
        from compel.embeddings_provider import EmbeddingsProvider, SplitLongTextMode  # here: few prompts need it

        provider = EmbeddingsProvider(
            self.tokenizer,
            _Layer(self.encoder, clip_skip, self.normed, device),
            dtype_for_device_getter=lambda _: at_least_float32(self.encoder.dtype),
            truncate=False,
            split_long_text_mode=SplitLongTextMode.SENTENCES,
        )
        found: Tensor = provider.get_embeddings_for_weighted_prompt_fragments(
            [[phrase.text for phrase in said]], [[phrase.weight for phrase in said]], device=device
        )
        return found


class _Layer:
    """A text encoder as compel calls it: the layer that is wanted is its last."""

    def __init__(self, encoder: Any, clip_skip: int, normed: bool, device: torch.device) -> None:
        self._encoder, self._skip, self._normed = encoder, clip_skip, normed
        self.device, self.dtype = device, encoder.dtype

    def __call__(self, ids: Tensor, mask: Tensor | None = None, **_: object) -> SimpleNamespace:
        found = self._encoder(ids, attention_mask=mask, output_hidden_states=True)
        if not self._normed:
            return SimpleNamespace(last_hidden_state=found.hidden_states[-(self._skip + 2)])
        if not self._skip:
            return SimpleNamespace(last_hidden_state=found.last_hidden_state)
        inner = getattr(self._encoder, "text_model", self._encoder)  # transformers has it no more
        return SimpleNamespace(last_hidden_state=inner.final_layer_norm(found.hidden_states[-(self._skip + 1)]))


def read(
    said: Sequence[Phrase],
    readers: Sequence[Reader],
    convert: Callable[[str, Any], str],
    clip_skip: int,
    device: torch.device,
    note: Note,
) -> Tensor | None:
    """Returns the states (1, n, features) of a prompt; None if it is one that the stock pipeline encodes.

    That is one without weights, not longer than is read at once, by the layer that the model was trained with.
    (diffusers 0.42.1 leaves out no layers of Stable Diffusion 1.x and 2.x with transformers 5.)

    Args:
        said: the prompt.
        readers: the text encoders; their features come after each other.
        convert: a text and a tokenizer to the text with the words of textual inversion spelled out.
        clip_skip: how many of the last layers are left out.
        device: where the encoders run.
        note: called with a line where a prompt is read in parts.
    """
    spelled = [[Phrase(convert(text, one.tokenizer), weight) for text, weight in said] for one in readers]
    counts = [one.tokens(plain(of_one)) for one, of_one in zip(readers, spelled, strict=True)]
    long = [count > one.longest for one, count in zip(readers, counts, strict=True)]
    if not clip_skip and not any(long) and [phrase.weight for phrase in said] == [1]:
        return None
    found = [one.states(of_one, clip_skip, device) for one, of_one in zip(readers, spelled, strict=True)]
    length = max(states.shape[1] for states in found)
    if any(long):
        at_once = readers[0].longest
        note(
            f"the prompt has {max(counts)} tokens, and the model reads {at_once} at once: "
            f"it is read in {length // at_once} parts"
        )
    empty = [Phrase("", 1.0)]
    whole = [
        torch.cat([states, *[one.states(empty, clip_skip, device)] * ((length - states.shape[1]) // one.longest)], 1)
        for one, states in zip(readers, found, strict=True)
    ]
    return torch.cat(whole, dim=-1)


def note_unknown(text: str, tokenizer: Any, note: Note) -> None:
    """Notes words that the model was never taught, where its tokenizer tells: taught ones are one token each."""
    if not tokenizer.init_kwargs.get(WHOLE_WORDS):
        return
    known = tokenizer.get_vocab()
    words = [word.strip(".,;:!?()[]\"'") for word in text.lower().split()]
    parts = [part for word in words if word + _WORD_END not in known for part in re.findall(r"[^\W\d_]+", word)]
    unknown = dict.fromkeys(part for part in parts if part + _WORD_END not in known)
    if unknown:
        note(f"the model was never taught {', '.join(map(repr, unknown))}, and may draw anything for it")
