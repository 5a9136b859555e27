"""New documents: how the models' losses become one.

Shape suffixes: F fold models of all members, M models that are combined, N documents, S tokens of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.combination import Combination
from ensemble.predictions import PredictionError
from ensemble.run import Run
from ensemble.token_losses.columns import combine_folds, read_columns
from ensemble.token_losses.combine import mix_losses
from ensemble.token_losses.files import sum_documents
from ensemble.token_losses.submission import HEADER, fit_run


@dataclass(frozen=True)
class LossCombiner:
    """How the losses of a run's models become one.

    Attributes:
        weights_M: of what is combined; None: equal ones.
        names: (M,) of what is combined: `fold_0`, or the members.
        num_members, num_folds: whose fold models score, those of a member one after the other.
    """

    weights_M: np.ndarray | None
    names: tuple[str, ...]
    num_members: int
    num_folds: int

    def list_columns(self, target: str, *, shows_models: bool) -> tuple[str, ...]:
        """Names of what `predict` gives, but for the id."""
        models = (*(f"model_{name}" for name in self.names), "std") if shows_models else ()
        return (target, *HEADER, *models)

    def predict(self, predictor: Any, block: pa.Table, *, shows_models: bool) -> pa.Table:
        """Of each document nats, tokens, bytes, perplexity and bits per byte, if wanted the nats of each model and
        their standard deviation; see `ensemble.run.Combiner`."""
        found = predictor.predict(block)
        ids, tokens_N, nats_FS = found.ids.tolist(), np.asarray(found.tokens, np.int64), np.asarray(found.nats)
        if nats_FS.shape != (self.num_members * self.num_folds, int(tokens_N.sum())) or not np.isfinite(nats_FS).all():
            raise PredictionError(
                f"new documents have losses {nats_FS.shape}: expected finite ones, (models, {tokens_N.sum()} tokens)"
            )
        nats_MS = nats_FS if self.num_members == 1 else combine_folds(nats_FS, [self.num_folds] * self.num_members)
        nats_N = sum_documents(mix_losses(nats_MS, self.weights_M), tokens_N)
        bits_N = nats_N / (np.log(2) * np.maximum(found.bytes, 1))
        perplexity_N = np.exp(np.minimum(nats_N / tokens_N, 700))
        values = [nats_N, tokens_N, np.asarray(found.bytes, np.int64), perplexity_N, bits_N]
        if shows_models:
            models_MN = np.stack([sum_documents(one_S, tokens_N) for one_S in nats_MS])
            values += [*models_MN, models_MN.std(axis=0)]
        problems = dict(found.problems)
        told = pa.array([problems.get(one) for one in ids], pa.string())
        names = [*map(str, range(1 + len(values))), "problem"]
        return pa.table([pa.array(ids, pa.string()), *map(pa.array, values), told], names=names)


def build_combiner(run: Run, how: Combination, read_scores: Callable[[], Mapping[str, Any]]) -> LossCombiner:
    """The run's combination with the weights that its submission has; arguments as in `Kind.build_combiner`."""
    weights_M = fit_run(run, how, run.read_unseen(read_columns), read_scores)
    return LossCombiner(weights_M, run.model_names, len(run.members), run.num_folds)
