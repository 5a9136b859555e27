"""Questions and responses as the model's tokens, by its tokenizer and its chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


@dataclass(frozen=True)
class Chat:
    """How a model is asked.

    Attributes:
        tokenizer: of the model, in the form of transformers.
        end_ids: tokens that end an answer, the usual one first.
        system_prompt: empty: none.
        max_prompt_tokens: longer prompts lose their beginning.
    """

    tokenizer: Any
    end_ids: tuple[int, ...]
    system_prompt: str = ""
    max_prompt_tokens: int = 1024

    @property
    def pad_id(self) -> int:
        """What fills up: it is masked, so any token does."""
        pad = self.tokenizer.pad_token_id
        return int(self.end_ids[0] if pad is None else pad)

    def encode_prompt(self, prompt: str) -> list[int]:
        """The tokens after which the answer begins."""
        return self._encode(self._render(prompt, None))[-self.max_prompt_tokens :]

    def encode_response(self, prompt: str, response: str) -> list[int]:
        """The tokens of a response behind its prompt, its end included."""
        asked, whole = self._render(prompt, None), self._render(prompt, response)
        # What a template puts behind an answer's end nobody has to say.
        rest = whole[len(asked) :] if whole.startswith(asked) else response
        ids = self._encode(rest)
        ends = [place for place, one in enumerate(ids) if one in self.end_ids]
        return ids[: ends[-1] + 1] if ends else [*ids, self.end_ids[0]]

    def decode(self, ids: Sequence[int]) -> str:
        """An answer's text, without its end."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def is_ended(self, ids: Sequence[int]) -> bool:
        """Whether an answer has come to its end, and was not cut."""
        return bool(ids) and ids[-1] in self.end_ids

    def _render(self, prompt: str, response: str | None) -> str:
        if self.tokenizer.chat_template is None:
            asked = f"{self.system_prompt}\n\n{prompt}\n" if self.system_prompt else f"{prompt}\n"
            return asked + (response or "")
        messages = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        messages.append({"role": "user", "content": prompt})
        if response is not None:
            messages.append({"role": "assistant", "content": response})
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=response is None)
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def load_chat(
    folder: Path, end_ids: Sequence[int], system_prompt: str, max_prompt_tokens: int, template: str | None = None
) -> Chat:
    """The chat of a model's folder.

    Args:
        folder: with the tokenizer's files.
        end_ids: of the model's generation config.
        system_prompt, max_prompt_tokens: as `Chat` has them.
        template: in the place of the tokenizer's own.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ends = tuple(dict.fromkeys(int(one) for one in (*own, *end_ids)))
    return Chat(tokenizer, ends, system_prompt, max_prompt_tokens)
