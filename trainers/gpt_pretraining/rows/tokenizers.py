"""How texts become tokens: bytes, characters, or byte pair encoding that is learned or read from files.

Byte pair encoding by the package `tokenizers`. Words such as <|endoftext|> inside a text are text.
"""

from __future__ import annotations

import importlib.util
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainers.gpt_pretraining.config import END_OF_TEXT, TokenizerConfig
from trainers.interface import DataError

if TYPE_CHECKING:
    import tokenizers

_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[SEP]")
_GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
UNKNOWN = "\ufffd"


class Tokenizer(ABC):
    """Texts to tokens and back.

    Attributes:
        name: what it is, for the user.
        vocabulary: the number of tokens.
        end: the token that ends, and begins, a document.
    """

    name: str
    vocabulary: int
    end: int

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, (n,) int, without the end."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; the end is none."""

    @abstractmethod
    def to_json(self) -> str:
        """All of it, for `read_tokenizer`."""

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The smallest that holds its tokens."""
        return np.uint16 if self.vocabulary <= 2**16 else np.uint32


class Bytes(Tokenizer):
    """The bytes of UTF-8."""

    name, vocabulary, end = "bytes", 257, 256

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.uint16) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < 256).decode("utf-8", "replace")

    def to_json(self) -> str:
        return json.dumps({"kind": "bytes"})


class Characters(Tokenizer):
    """The characters of the training documents; any other is one unknown character."""

    def __init__(self, alphabet: str) -> None:
        self.name = f"{len(alphabet)} characters"
        self.alphabet = alphabet
        self.number = {character: number for number, character in enumerate(alphabet)}
        self.unknown, self.end, self.vocabulary = len(alphabet), len(alphabet) + 1, len(alphabet) + 2

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        number, unknown = self.number, self.unknown
        return [np.array([number.get(one, unknown) for one in text], np.uint32) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join((self.alphabet + UNKNOWN)[token] for token in tokens if token <= self.unknown)

    def to_json(self) -> str:
        return json.dumps({"kind": "characters", "alphabet": self.alphabet})


class BytePairs(Tokenizer):
    """Byte pair encoding, or whatever else a tokenizer.json says."""

    def __init__(self, inner: tokenizers.Tokenizer, name: str, end: int) -> None:
        inner.encode_special_tokens = True  # as text
        self.inner, self.name, self.end = inner, name, end
        self.vocabulary = inner.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        found = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, np.uint32) for one in found]

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.inner.decode([int(token) for token in tokens if token != self.end], skip_special_tokens=False))

    def to_json(self) -> str:
        return json.dumps(
            {"kind": "bpe", "name": self.name, "end": self.end, "tokenizer": json.loads(self.inner.to_str())}
        )


def read_tokenizer(content: str | bytes) -> Tokenizer:
    """What `to_json` wrote."""
    said = json.loads(content)
    if said["kind"] == "bytes":
        return Bytes()
    if said["kind"] == "characters":
        return Characters(said["alphabet"])
    _require_package()
    import tokenizers

    return BytePairs(tokenizers.Tokenizer.from_str(json.dumps(said["tokenizer"])), said["name"], said["end"])


def build_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer of a run.

    Args:
        config: which.
        texts: of the training documents, in order.

    Raises:
        DataError: a file is missing or no tokenizer, or a package is not installed.
    """
    if config.kind == "bytes":
        return Bytes()
    if config.kind == "characters":
        known: set[str] = set()
        for text in texts:
            known.update(text)
        return Characters("".join(sorted(known)))
    _require_package()
    if config.kind == "bpe":
        return _learn(config.vocabulary, _take(texts, config.learned_megabytes * 1e6))
    assert config.path is not None
    return _read_files(Path(os.path.expanduser(config.path)))


def _require_package() -> None:
    if importlib.util.find_spec("tokenizers") is None:
        raise DataError(
            "byte pair encoding needs the package tokenizers, which is not installed; pip install 'ray-kfold[text]', "
            "or set tokenizer.kind=bytes or characters"
        )


def _take(texts: Iterable[str], most: float) -> Iterator[str]:
    for text in texts:
        yield text
        most -= len(text)
        if most <= 0:
            return


def _learn(vocabulary: int, texts: Iterator[str]) -> BytePairs:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    name = f"{inner.get_vocab_size():,} byte pairs learned from the training documents"
    return BytePairs(inner, name, inner.get_vocab()[END_OF_TEXT])


def _read_files(path: Path) -> BytePairs:
    """A tokenizer.json, or GPT-2's files."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.is_file():
            return _with_end(tokenizers.Tokenizer.from_file(str(file)), str(file))
        for vocabulary, merges in _GPT2_FILES:
            if (path / vocabulary).is_file() and (path / merges).is_file():
                model = models.BPE.from_file(str(path / vocabulary), str(path / merges))
                inner = tokenizers.Tokenizer(model)
                inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
                inner.decoder = decoders.ByteLevel()
                return _with_end(inner, str(path))
    except Exception as error:  # the package raises nothing narrower
        raise DataError(f"tokenizer.path={path}: it cannot be read as a tokenizer: {error!s:.200}") from None
    raise DataError(
        f"tokenizer.path={path}: expected a tokenizer.json, or a folder with one or with vocab.json and merges.txt (or "
        "encoder.json and vocab.bpe)"
    )


def _with_end(inner: tokenizers.Tokenizer, place: str) -> BytePairs:
    for end in _ENDS:
        if (token := inner.token_to_id(end)) is not None:
            return BytePairs(inner, f"the tokenizer of {place}", token)
    raise DataError(f"tokenizer.path={place}: it has no token that ends a text: expected one of {', '.join(_ENDS)}")
