"""Scores new documents with the models of a run.

Shape suffixes: M models, S tokens of all documents of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from trainers.gpt_pretraining.config import Config
from trainers.gpt_pretraining.network.model import Gpt
from trainers.gpt_pretraining.network.scoring import Scoring
from trainers.gpt_pretraining.network.sharding import join_parts
from trainers.gpt_pretraining.new_rows import NewRows
from trainers.gpt_pretraining.rows.corpus import TOKENIZER, hold_corpus
from trainers.gpt_pretraining.rows.tokenizers import Tokenizer, read_tokenizer
from trainers.gpt_pretraining.train import build_model, build_scoring
from trainers.interface import DataError, TrainedModel
from trainers.learning.arithmetic import choose_precision, use_deterministic_algorithms
from trainers.learning.config_sections import read_sections
from trainers.predictions import NewTokenLosses


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device, in evaluation mode, and how it scores."""

    gpt: Gpt
    scoring: Scoring


class Predictor:
    """All models of a run on a device.

    Args:
        models: what was saved of each.
        rows: that will be scored.
        device: cpu or cuda:0.
        num_threads: of torch.
    """

    def __init__(self, models: Sequence[TrainedModel], rows: NewRows, device: str, num_threads: int) -> None:
        use_deterministic_algorithms()
        torch.set_num_threads(num_threads)
        self.tokenizer = load_tokenizer(models)
        self.models = [load_model(model, self.tokenizer, device) for model in models]

    def predict(self, block: pa.Table) -> NewTokenLosses:
        """The losses of each token of each document of a block, by each model."""
        ids, texts = block["id"].to_pylist(), block["text"].to_pylist()
        corpus = hold_corpus(ids, texts, self.tokenizer)
        nats = []
        for model in self.models:
            together = model.scoring.documents_together
            found: list[np.ndarray] = []
            for start in range(0, len(corpus), together):
                numbers = range(start, min(start + together, len(corpus)))
                found += model.scoring.score(model.gpt, [corpus.read(number) for number in numbers])
            nats.append(np.concatenate(found))
        return NewTokenLosses(corpus.ids, corpus.counts_N + 1, corpus.bytes_N, np.stack(nats), ())


class Soup(Predictor):
    """One model: its weights are the mean of those of all folds. Arguments as of `Predictor`."""

    def __init__(self, models: Sequence[TrainedModel], rows: NewRows, device: str, num_threads: int) -> None:
        load_tokenizer(models)
        states = [join_parts(model.tensors) for model in models]
        mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
        super().__init__([replace(models[0], tensors=mean)], rows, device, num_threads)


def load_tokenizer(models: Sequence[TrainedModel]) -> Tokenizer:
    """The tokenizer of some models.

    Raises:
        DataError: they have several.
    """
    contents = {model.files[TOKENIZER] for model in models}
    if len(contents) > 1:
        raise DataError(
            f"the run's models have {len(contents)} tokenizers, so that the losses of their tokens cannot be put "
            "together: name members with one tokenizer in ensemble.members"
        )
    return read_tokenizer(contents.pop())


def load_model(model: TrainedModel, tokenizer: Tokenizer, device: str) -> LoadedModel:
    """A model from what was saved."""
    config = read_sections(Config, model.description["config"])
    gpt = build_model(config, tokenizer)
    gpt.load_state_dict(join_parts(model.tensors))
    precision = choose_precision(config.training.precision, device)
    return LoadedModel(gpt.to(device).eval(), build_scoring(config, tokenizer, device, precision))
