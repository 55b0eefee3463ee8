"""The tokenizer: a byte-pair encoding of the captions' words that can spell every other word, too."""

import json

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from training.captions import vocabulary

LENGTH = 32  # tokens of a prompt, the two special ones counted in
_WORD_END = "</w>"
_MERGED = 2000  # most entries that merging may make; the captions' words need fewer
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def build() -> CLIPTokenizer:
    """Return a tokenizer in which every word of the captions is one token and every byte has its own."""
    alphabet = sorted(ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=_MERGED, initial_alphabet=alphabet, end_of_word_suffix=_WORD_END, show_progress=False
    )
    learner = Tokenizer(BPE(end_of_word_suffix=_WORD_END))
    learner.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    words = [word.strip(",") for wording in vocabulary() for word in wording.split()]
    learner.train_from_iterator((word for word in words for _ in range(2)), trainer)
    found = sorted(learner.get_vocab().items(), key=lambda entry: entry[1])
    entries = dict.fromkeys([*alphabet, *(letter + _WORD_END for letter in alphabet), *(token for token, _ in found)])
    vocab = {token: index for index, token in enumerate([*entries, *_SPECIAL])}
    merges = [tuple(pair) for pair in _merges(learner)]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH, whole_words=True)


def _merges(learner: Tokenizer) -> list[list[str]]:
    """Return the pairs that a trained encoding merges, in order."""
    found = json.loads(learner.to_str())["model"]["merges"]
    return [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in found]
