"""The trial of a sweep. What candidates predict stays within it. It is a class, whose steps run in their process's main
thread; Ray Tune calls a function in a thread, and modules must not be loaded there."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from ensemble.kinds import Kind
from ensemble.members.search import Candidate, score_candidates
from ensemble.run import Combinable, Evaluation
from trainers.storage.whole_files import write_whole


class SweepTrial(tune.Trainable):
    """Evaluates the candidates of a batch and writes what they come to, whole."""

    def setup(  # type: ignore[override] # `tune.with_parameters` passes the others
        self,
        config: dict[str, Any],
        todo: Mapping[int, tuple[list[Candidate], Path]],
        columns: Mapping[str, Combinable],
        how: tuple[Kind, str],
    ) -> None:
        """Takes the batch that `config` names, its file, the predictions by checkpoint, and kind and metric."""
        self.batch, self.path = todo[config["batch"]]
        self.columns, (self.kind, self.metric) = columns, how

    def step(self) -> dict[str, Any]:
        """The whole trial."""
        scored = score_candidates(self.kind, self._evaluate(), self.columns["best"], self.metric)
        content = io.BytesIO()
        np.savez(content, **vars(scored))
        write_whole(self.path, content.getvalue())
        best = min(range(len(self.batch)), key=lambda index: np.nanmean(scored.inner_CF[index]))
        return {
            "error": float(np.nanmean(scored.inner_CF[best])),
            "best": str(self.batch[best]),
            "candidates": len(self.batch),
            "done": True,
        }

    def _evaluate(self) -> list[Evaluation]:
        """Of each candidate, those of one checkpoint together."""
        found: dict[Candidate, Evaluation] = {}
        for checkpoint, columns in self.columns.items():
            own = [candidate for candidate in self.batch if candidate.checkpoint == checkpoint]
            evaluations = columns.evaluate([(candidate.members, candidate.how) for candidate in own]) if own else []
            found |= dict(zip(own, evaluations, strict=True))
        return [found[candidate] for candidate in self.batch]
