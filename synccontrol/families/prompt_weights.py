"""Prompt syntax: weights, `(word:1.3)`, and prompts longer than a text encoder's context."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from synccontrol.sampling.batching import Note
from synccontrol.sampling.noise_level import at_least_float32

_PIECE_PATTERN = re.compile(r"\\[()]|[()]|(?:\\(?![()])|[^\\()])+")
_WEIGHT_PATTERN = re.compile(r":\s*(\d+(?:\.\d*)?|\.\d+)\s*$")  # the weight before a closing bracket
CLIP_TOKENS = 77  # context length of published CLIP text encoders
_WORD_END = "</w>"  # of tokens that end a word
WHOLE_WORDS = "whole_words"  # tokenizer setting: every word of the training captions is one token


class Phrase(NamedTuple):
    """A part of a prompt with one weight."""

    text: str
    weight: float  # 1: unchanged


def parse_prompt(prompt: str) -> list[Phrase]:
    r"""Parse a prompt into phrases. `(text:1.3)` weights a text; nested weights multiply.

    Brackets without a number are brackets, and `\(` always is one.
    """
    parts: list[Phrase] = []
    opened: list[int] = []  # indices of open brackets in `parts`
    for piece in _PIECE_PATTERN.findall(prompt):
        parts.append(Phrase(piece[-1] if piece[0] == "\\" and len(piece) == 2 else piece, 1.0))
        if piece == "(":
            opened.append(len(parts) - 1)
        elif piece == ")" and opened:
            start = opened.pop()
            end = _WEIGHT_PATTERN.search(parts[-2].text)
            if end and parts[-2].weight == 1:
                inside = [*parts[start + 1 : -2], Phrase(parts[-2].text[: end.start()], 1.0)]
                parts[start:] = [Phrase(text, weight * float(end[1])) for text, weight in inside]
    return _merge_phrases(parts)


def _merge_phrases(parts: Sequence[Phrase]) -> list[Phrase]:
    """Merge neighbours of the same weight, and drop empty phrases."""
    phrases: list[Phrase] = []
    for part in parts:
        if phrases and phrases[-1].weight == part.weight:
            phrases[-1] = Phrase(phrases[-1].text + part.text, part.weight)
        elif part.text:
            phrases.append(part)
    return phrases or [Phrase("", 1.0)]


def plain_text(phrases: Sequence[Phrase]) -> str:
    """Return the text of phrases without weights."""
    return "".join(phrase.text for phrase in phrases)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipEncoder:
    """A CLIP text encoder with its tokenizer."""

    tokenizer: Any
    encoder: Any
    has_final_norm: bool  # whether states are the last layer's after the final norm; else the layer's before it

    @property
    def max_tokens(self) -> int:
        """Return the context length in tokens, including begin and end."""
        length: int = self.tokenizer.model_max_length
        return length

    @property
    def skippable_layers(self) -> int:
        """Return the largest possible clip skip."""
        return int(self.encoder.config.num_hidden_layers) - (not self.has_final_norm)

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, including begin and end."""
        return len(self.tokenizer(text, verbose=False).input_ids)

    def states(self, phrases: Sequence[Phrase], clip_skip: int, device: torch.device) -> Tensor:
        """Return the states (1, n, features) of weighted phrases; n is a multiple of `max_tokens`.

        A long text is split between sentences, else between phrases, else between words. A weight above 1 moves the
        states away from those of an empty prompt; one below 1 moves them towards the states without the phrase
        (compel).
        """
        # Imported late: few prompts need it.
        from compel.embeddings_provider import EmbeddingsProvider, SplitLongTextMode

        provider = EmbeddingsProvider(
            self.tokenizer,
            _ClipSkipEncoder(self.encoder, clip_skip, self.has_final_norm, device),
            dtype_for_device_getter=lambda _: at_least_float32(self.encoder.dtype),
            truncate=False,
            split_long_text_mode=SplitLongTextMode.SENTENCES,
        )
        states: Tensor = provider.get_embeddings_for_weighted_prompt_fragments(
            [[phrase.text for phrase in phrases]], [[phrase.weight for phrase in phrases]], device=device
        )
        return states


class _ClipSkipEncoder:
    """A text encoder as compel calls it, whose last layer is the one that clip skip selects."""

    def __init__(self, encoder: Any, clip_skip: int, has_final_norm: bool, device: torch.device) -> None:
        self._encoder, self._clip_skip, self._has_final_norm = encoder, clip_skip, has_final_norm
        self.device, self.dtype = device, encoder.dtype

    def __call__(self, ids: Tensor, mask: Tensor | None = None, **_: object) -> SimpleNamespace:
        output = self._encoder(ids, attention_mask=mask, output_hidden_states=True)
        if not self._has_final_norm:
            return SimpleNamespace(last_hidden_state=output.hidden_states[-(self._clip_skip + 2)])
        if not self._clip_skip:
            return SimpleNamespace(last_hidden_state=output.last_hidden_state)
        text_model = getattr(self._encoder, "text_model", self._encoder)  # absent in newer transformers
        return SimpleNamespace(
            last_hidden_state=text_model.final_layer_norm(output.hidden_states[-(self._clip_skip + 1)])
        )


def encode_phrases(
    phrases: Sequence[Phrase],
    encoders: Sequence[ClipEncoder],
    convert: Callable[[str, Any], str],
    clip_skip: int,
    device: torch.device,
    note: Note,
) -> Tensor | None:
    """Return the states (1, n, features) of a weighted or long prompt, or of one with clip skip; None for others.

    The stock pipeline encodes prompts without weights that fit into the context and use the layer the model was trained
    with. (diffusers 0.42.1 skips no layers of Stable Diffusion 1.x and 2.x with transformers 5.)

    Args:
        phrases: the prompt.
        encoders: the text encoders; their features are concatenated.
        convert: expands textual inversion words in a text, given its tokenizer.
        clip_skip: number of last layers to skip.
        device: where the encoders run.
        note: called with a line if a prompt is encoded in parts.
    """
    converted = [[Phrase(convert(text, encoder.tokenizer), weight) for text, weight in phrases] for encoder in encoders]
    counts = [
        encoder.count_tokens(plain_text(own_phrases)) for encoder, own_phrases in zip(encoders, converted, strict=True)
    ]
    is_long = [count > encoder.max_tokens for encoder, count in zip(encoders, counts, strict=True)]
    if not clip_skip and not any(is_long) and [phrase.weight for phrase in phrases] == [1]:
        return None
    states_by_encoder = [
        encoder.states(own_phrases, clip_skip, device) for encoder, own_phrases in zip(encoders, converted, strict=True)
    ]
    length = max(states.shape[1] for states in states_by_encoder)
    if any(is_long):
        max_tokens = encoders[0].max_tokens
        note(
            f"the prompt has {max(counts)} tokens, and the model reads {max_tokens} at once: "
            f"it is read in {length // max_tokens} parts"
        )
    empty = [Phrase("", 1.0)]
    padded = [
        torch.cat(
            [states, *[encoder.states(empty, clip_skip, device)] * ((length - states.shape[1]) // encoder.max_tokens)],
            1,
        )
        for encoder, states in zip(encoders, states_by_encoder, strict=True)
    ]
    return torch.cat(padded, dim=-1)


def note_unknown_words(text: str, tokenizer: Any, note: Note) -> None:
    """Note words that are missing from the training captions, for tokenizers with one token per vocabulary word."""
    if not tokenizer.init_kwargs.get(WHOLE_WORDS):
        return
    vocabulary = tokenizer.get_vocab()
    words = [word.strip(".,;:!?()[]\"'") for word in text.lower().split()]
    parts = [part for word in words if word + _WORD_END not in vocabulary for part in re.findall(r"[^\W\d_]+", word)]
    unknown = dict.fromkeys(part for part in parts if part + _WORD_END not in vocabulary)
    if unknown:
        note(f"the model was never taught {', '.join(map(repr, unknown))}, and may show anything for it")
