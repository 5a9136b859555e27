"""Continues a prompt, token by token, with the distribution of one model or of several together. Light: no torch until
something is generated.

Shape suffixes: M models, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trainers.interface import TrainedModel
from trainers.values import check_choice, check_number

if TYPE_CHECKING:
    from trainers.gpt_pretraining.predict import LoadedModel


@dataclass(frozen=True)
class Options:
    """How texts are continued."""

    prompt: str = ""
    """Text to go on from; empty: a new document begins."""
    count: int = 1
    """Texts to make."""
    tokens: int = 200
    """Of each at most; it ends earlier where the model says so."""
    temperature: float = 1.0
    """Below 1: likelier tokens; 0: always the likeliest."""
    top_k: int | None = None
    """Only the so many likeliest tokens."""
    seed: int = 0
    """The same seed, the same texts."""
    mixture: Literal["mean", "log_mean"] = "mean"
    """Of several models: the mean of their probabilities, or of the logarithms, scaled to add up to 1."""

    def __post_init__(self) -> None:
        check_number("--count", self.count, least=1)
        check_number("--tokens", self.tokens, least=1)
        check_number("--temperature", self.temperature, least=0)
        check_number("--top-k", self.top_k, least=1, instead="none")
        check_number("--seed", self.seed, least=0)
        check_choice("--mixture", self.mixture, ("mean", "log_mean"))


def generate(
    models: Sequence[TrainedModel], options: Options, folder: Path, device: str, num_threads: int
) -> Iterator[str]:
    """Yields the texts, each with its prompt; writes them to `texts.jsonl`.

    Args:
        models: what was saved of each.
        options: how.
        folder: for the file.
        device, num_threads: of torch.
    """
    import json

    import torch

    from trainers.gpt_pretraining.predict import load_model, load_tokenizer

    torch.set_num_threads(num_threads)
    tokenizer = load_tokenizer(models)
    loaded = [load_model(model, tokenizer, device) for model in models]
    prompt = [tokenizer.end, *(tokenizer.encode([options.prompt])[0].tolist() if options.prompt else [])]
    with (folder / "texts.jsonl").open("w") as file:
        for number in range(options.count):
            rng = np.random.default_rng([options.seed, number])
            found = list(_continue(loaded, prompt, tokenizer.end, options, device, rng))
            text = options.prompt + tokenizer.decode(found)
            file.write(json.dumps({"prompt": options.prompt, "text": text, "tokens": len(found)}) + "\n")
            yield text


def _continue(
    models: Sequence[LoadedModel], prompt: Sequence[int], end: int, options: Options, device: str, rng: Any
) -> Iterator[int]:
    tokens = list(prompt)
    for _ in range(options.tokens):
        token = choose_token(mix(models, tokens, options.mixture, device), options, rng)
        if token == end:
            return
        tokens.append(token)
        yield token


def mix(models: Sequence[LoadedModel], tokens: Sequence[int], mixture: str, device: str) -> np.ndarray:
    """The logarithm of the probability of each next token, by all models together, (V,)."""
    import torch

    from trainers.learning.arithmetic import autocast

    logs = []
    with torch.inference_mode():
        for model in models:
            seen = torch.tensor([tokens[-model.scoring.window :]], device=device)
            with autocast(device, model.scoring.precision):
                logits_V = model.gpt(seen)[0]
            logs.append(torch.log_softmax(logits_V.double(), 0))
    logs_MV = torch.stack(logs)
    if mixture == "log_mean":
        mixed_V = torch.log_softmax(logs_MV.mean(0), 0)
    else:
        mixed_V = torch.logsumexp(logs_MV, 0) - np.log(len(models))
    found: np.ndarray = mixed_V.cpu().numpy()
    return found


def choose_token(log_probability_V: np.ndarray, options: Options, rng: Any) -> int:
    """Draws a token."""
    if options.temperature == 0:
        return int(log_probability_V.argmax())
    scaled_V = log_probability_V / options.temperature
    if options.top_k is not None and options.top_k < len(scaled_V):
        least = np.partition(scaled_V, -options.top_k)[-options.top_k]
        scaled_V = np.where(scaled_V >= least, scaled_V, -np.inf)
    chances_V = np.exp(scaled_V - scaled_V.max())
    return int(rng.choice(len(chances_V), p=chances_V / chances_V.sum()))
