"""Learns one fold: a decoder that predicts the next token of the fold's training documents."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainers.gpt_pretraining.config import Config
from trainers.gpt_pretraining.inputs.windows import Documents, Stream
from trainers.gpt_pretraining.learner import TokenLearner, to_perplexity
from trainers.gpt_pretraining.network.model import Gpt
from trainers.gpt_pretraining.network.pretrained import load_pretrained
from trainers.gpt_pretraining.network.scoring import Scoring, score_blocks
from trainers.gpt_pretraining.network.sharding import (
    divide,
    fill,
    find_group_size,
    is_divided,
    join_parts,
    name_parts,
    to_local,
)
from trainers.gpt_pretraining.rows.corpus import TOKENIZER, Corpus, open_corpus, open_tokenizer
from trainers.gpt_pretraining.rows.tokenizers import Tokenizer
from trainers.interface import (
    CheckpointName,
    FoldContext,
    RowsName,
    Split,
)
from trainers.learning.arithmetic import choose_precision, seed_fold, sum_over_ranks
from trainers.predictions import TokenLosses


def train_fold(config: Config, split: Split, context: FoldContext) -> None:
    """Trains, validates, saves and scores one fold; called on every rank.

    Raises:
        DataError: the weights to begin with are none of such a model.
    """
    torch.set_num_threads(context.num_threads)
    seed_fold(config.training.seed, split.fold)
    fold = _set_up(config, split, context)
    if context.world_size > 1:
        seed_fold(config.training.seed, split.fold, context.rank)  # dropout of its own
    TokenLearner(fold).learn()


def _set_up(config: Config, split: Split, context: FoldContext) -> GptFold:
    def read() -> tuple[Tokenizer, Corpus | None, Corpus | None]:
        tokenizer = open_tokenizer(context.inputs)
        train, test = (open_corpus(context.inputs, table, tokenizer) for table in ("train", "test"))
        return tokenizer, train, test

    tokenizer, table, test = context.retry_while_unavailable("reading the documents", read)
    train, validation, blend = (
        table.find(ids.tolist()) for ids in (split.train_ids, split.validation_ids, split.blend_ids)
    )
    model = build_model(config, tokenizer)
    if config.model.pretrained:
        load_pretrained(model, config.model.pretrained)
    model.to(context.device)
    divided = is_divided(config.sharding, context.world_size)
    if divided:
        divide(model, config.sharding, context.world_size, context.device)
    if config.training.compile and context.device.startswith("cuda"):
        model.compile()
    rows_kind = Stream if config.training.packing == "stream" else Documents
    rows = rows_kind(table, train, config.model.context, tokenizer.end, config.training.seed, split.fold)
    parts: dict[RowsName, tuple[Corpus, np.ndarray]] = {"validation": (table, validation), "blend": (table, blend)}
    if test is not None:
        parts["test"] = (test, np.arange(len(test)))
    precision = choose_precision(config.training.precision, context.device)
    return GptFold(config, split, context, model, tokenizer, rows, parts, precision, divided)


def build_model(config: Config, tokenizer: Tokenizer) -> Gpt:
    """The model, untrained, on the CPU."""
    return Gpt(config.model, tokenizer.vocabulary, config.training.loss_tokens)


def build_scoring(config: Config, tokenizer: Tokenizer, device: str, precision: torch.dtype) -> Scoring:
    """How a config scores documents."""
    return Scoring(
        config.model.context, config.stride, tokenizer.end, config.training.eval_batch_size, device, precision
    )


@dataclass
class GptFold:
    """What stays the same while a fold trains: its documents, its model, and how to validate, save and score.

    Attributes:
        rows: what is trained on.
        parts: documents that do not train, by what they are for, as a corpus and numbers in it.
        is_divided: whether workers have parts of the weights.
    """

    CHOSEN_BY: ClassVar = "val/perplexity"

    config: Config
    split: Split
    context: FoldContext
    model: Gpt
    tokenizer: Tokenizer
    rows: Stream | Documents
    parts: dict[RowsName, tuple[Corpus, np.ndarray]]
    precision: torch.dtype
    is_divided: bool
    log_shares_V: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.log_shares_V = count_shares(self.rows.corpus, self.rows.documents_N, self.tokenizer)
        self.scoring = build_scoring(self.config, self.tokenizer, self.context.device, self.precision)
        self._whole: Gpt | None = None
        self.group_size = find_group_size(self.config.sharding, self.context.world_size)

    @property
    def whole_model(self) -> Gpt:
        """The model as one worker has it: of divided weights a copy, which `_gather` fills."""
        if not self.is_divided:
            return self.model
        if self._whole is None:
            self._whole = build_model(self.config, self.tokenizer).to(self.context.device)
        return self._whole

    def _gather(self) -> Gpt:
        """The whole model, in evaluation mode."""
        model = self.whole_model
        if self.is_divided:
            state = {name: value.full_tensor() for name, value in self.model.state_dict().items()}
            model.load_state_dict(state)
        return model.eval()

    def trained_state(self) -> dict[str, Tensor]:
        """All of the model; of divided weights this rank's parts."""
        return dict(self.model.state_dict())

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what `trained_state` gave, or whole tensors."""
        if not self.is_divided:
            self.model.load_state_dict(state)
            return
        with torch.no_grad():
            for name, target in self.model.state_dict().items():
                if type(state[name]) is type(target):
                    to_local(target).copy_(to_local(state[name]))
                else:
                    fill(target, [state[name]])

    def score(self, metrics: Mapping[str, float]) -> float:
        """Nats a token."""
        return metrics["val/loss_epoch"]

    def validate(self) -> dict[str, float]:
        """The losses of all tokens of the validation documents, over all ranks: sums are added, never means."""
        corpus, numbers = self.parts["validation"]
        sums = torch.zeros(5, dtype=torch.float64)
        for block in self._score(corpus, numbers):
            of_document = np.add.reduceat(block.nats.astype(np.float64), np.cumsum(block.tokens) - block.tokens)
            known = np.isfinite(block.floor)
            above = (of_document - block.floor)[known].sum()
            found = (of_document.sum(), block.tokens.sum(), block.bytes.sum(), above, block.tokens[known].sum())
            sums += torch.tensor(found, dtype=torch.float64)
            self.context.touch()
        nats, tokens, size, above, known_tokens = sum_over_ranks(sums.to(self.context.device)).tolist()
        metrics = {
            "val/loss_epoch": nats / tokens,
            "val/perplexity": to_perplexity(nats / tokens),
            "val/bits_per_byte": nats / (size * math.log(2)),
        }
        return metrics | ({"val/excess_nats": above / known_tokens} if known_tokens else {})

    def save(self, name: CheckpointName, epoch: int, metrics: dict[str, float]) -> None:
        """Writes a checkpoint from which documents can be scored and texts continued without this run."""
        names = ("val/loss_epoch", "val/perplexity", "val/bits_per_byte")
        description = {
            "family": "gpt_pretraining",
            "fold": self.split.fold,
            "epoch": epoch,
            "metrics": {key: metrics[key] for key in names},
            "model_summary": {},
            "architecture": {**asdict(self.config.model), "vocabulary": self.tokenizer.vocabulary},
            "evaluation": {"window": self.scoring.window, "stride": self.scoring.stride},
            "config": asdict(self.config),
        }
        state = self.trained_state()
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / TOKENIZER).write_text(self.tokenizer.to_json())
            if self.is_divided:
                parts = name_parts(state, self.context.rank, self.group_size)
                self.context.save_checkpoint(name, {}, description, shard=parts, files=Path(folder))
            else:
                self.context.save_checkpoint(name, state, description, files=Path(folder))

    def predict_checkpoints(self) -> None:
        """Loads best and final again, from the files, and writes the losses of all documents that do not train."""
        names: tuple[CheckpointName, ...] = ("best", "final")
        for name in names:
            self.load_trained_state(join_parts(self.context.load_checkpoint(name)))
            for part, (corpus, numbers) in self.parts.items():
                if len(numbers):
                    blocks = self._score(corpus, numbers)
                    self.context.save_predictions(name, part, corpus.ids[numbers], blocks)

    def _score(self, corpus: Corpus, numbers: np.ndarray) -> Iterator[TokenLosses]:
        """The losses of this rank's share of some documents."""
        own = numbers[self.context.rank :: self.context.world_size]
        read = partial(self.context.retry_while_unavailable, "reading documents")
        model, scoring = self._gather(), self.scoring
        for block, nats in score_blocks(scoring, model, own, lambda number: read(partial(corpus.read, number))):
            baseline = [-self._sum_shares(corpus.read(int(number))) for number in block]
            yield TokenLosses(
                corpus.ids[block],
                corpus.counts_N[block] + 1,
                np.concatenate(nats),
                corpus.bytes_N[block],
                corpus.floors_N[block],
                np.array(baseline),
                scoring.window,
                scoring.stride,
            )

    def _sum_shares(self, tokens: np.ndarray) -> float:
        return float(self.log_shares_V[tokens].sum() + self.log_shares_V[self.tokenizer.end])


def count_shares(corpus: Corpus, numbers: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """The logarithm of the share that each token has in some documents and their ends, one more of each, (V,)."""
    counts_V = np.ones(tokenizer.vocabulary, np.float64)
    counts_V[tokenizer.end] += len(numbers)
    for number in numbers.tolist():
        counts_V += np.bincount(corpus.read(number), minlength=tokenizer.vocabulary)
    log_shares_V: np.ndarray = np.log(counts_V / counts_V.sum())
    return log_shares_V
