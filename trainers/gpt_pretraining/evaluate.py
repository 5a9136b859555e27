"""Scores documents with a finished run's models: each fold's, and all together by the mean of their probabilities and
by the mean of the logarithms, which needs the models themselves. Where the folds began with the same weights, also with
the soup, one model whose weights are the mean of those of the run's own recipe. Light: no torch until it scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainers.gpt_pretraining.config import Config
from trainers.interface import DataError, TrainedModel
from trainers.learning.config_sections import read_sections
from trainers.predictions import TokenLosses

if TYPE_CHECKING:
    from trainers.gpt_pretraining.rows.corpus import Corpus


@dataclass(frozen=True)
class Options:
    """What is typed of an evaluation: nothing of this family's own."""

    @property
    def model(self) -> str:
        """What the evaluated models are called: as their checkpoint."""
        return ""


def evaluate(
    read_models: Callable[[str], Sequence[TrainedModel]],
    rows: Any,
    options: Options,
    cache: Path,
    device: str,
    num_threads: int,
    *,
    is_ablation: bool = False,
) -> Iterator[tuple[str, list[TokenLosses]]]:
    """The losses by each model, then those of all together.

    Args:
        read_models: the models of a checkpoint; without a name those of the run's ensemble.
        rows: of `find_new_rows`.
        options: of the user.
        cache: not used.
        device, num_threads: of torch.
        is_ablation: refused.

    Yields:
        `TrainedModel.name`, `mean`, `log_mean` or `soup`, and the losses.

    Raises:
        DataError: an ablation is asked for, or the models see windows of several lengths.
    """
    if is_ablation:
        raise DataError("the models of this family come through one stage only: evaluate.py scores them")
    import torch

    from trainers.gpt_pretraining.network.mixture import LogMean
    from trainers.gpt_pretraining.predict import load_model, load_tokenizer, mean_of
    from trainers.gpt_pretraining.rows.corpus import hold_corpus
    from trainers.learning.arithmetic import use_deterministic_algorithms

    use_deterministic_algorithms()
    torch.set_num_threads(num_threads)
    models = list(read_models(""))
    tokenizer = load_tokenizer(models)
    corpora = [
        hold_corpus(block["id"].to_pylist(), block["text"].to_pylist(), tokenizer)
        for block in rows.read(rows.batch_rows)
    ]
    loaded = [load_model(model, tokenizer, device) for model in models]
    if len(windows := {model.scoring.window for model in loaded}) > 1:
        raise DataError(
            f"the run's models see windows of {', '.join(map(str, sorted(windows)))} tokens, so that their losses do "
            "not compare: name members with one model.context in ensemble.members"
        )

    def score(model: Any) -> list[np.ndarray]:
        scoring = loaded[0].scoring
        return [np.concatenate(scoring.score(model, list(map(corpus.read, range(len(corpus)))))) for corpus in corpora]

    def describe(nats: Sequence[np.ndarray]) -> list[TokenLosses]:
        scoring = loaded[0].scoring
        return [_describe(corpus, nats_S, scoring) for corpus, nats_S in zip(corpora, nats, strict=True)]

    alone = []
    for model, own in zip(models, loaded, strict=True):
        alone.append(score(own.gpt))
        yield model.name, describe(alone[-1])
    if len(models) > 1:
        yield "mean", describe([_mix(np.stack(block)) for block in zip(*alone, strict=True)])
        yield "log_mean", describe(score(LogMean([own.gpt for own in loaded])))
    folds = [model for model in models if model.is_own]
    if len(folds) > 1 and read_sections(Config, folds[0].description["config"]).BEGINS_ALIKE:
        yield "soup", describe(score(load_model(mean_of(folds), tokenizer, device).gpt))


def _mix(nats_MS: np.ndarray) -> np.ndarray:
    """The nats of each token by the mean of M models' probabilities, (S,)."""
    least_S = nats_MS.min(axis=0)
    mixed_S: np.ndarray = least_S - np.log(np.exp(least_S - nats_MS).mean(axis=0))
    return mixed_S


def _describe(corpus: Corpus, nats_S: np.ndarray, scoring: Any) -> TokenLosses:
    """Of documents whose entropy is not known, nor the shares of tokens in what was learned from."""
    unknown_N = np.full(len(corpus), np.nan)
    return TokenLosses(
        corpus.ids, corpus.counts_N + 1, np.maximum(nats_S, 0.0), corpus.bytes_N, unknown_N, unknown_N,
        scoring.window, scoring.stride,
    )  # fmt: skip
