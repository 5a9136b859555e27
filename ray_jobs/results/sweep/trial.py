"""The trial of a sweep. It is a class, whose steps run in their process's main thread; Ray Tune calls a function in a
thread, and modules must not be loaded there."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from ensemble.members.search import Candidate
from ensemble.run import Combinable, Evaluation
from trainers.storage.whole_files import write_whole


class SweepTrial(tune.Trainable):
    """Evaluates the candidates of a batch and writes what they come to, whole."""

    def setup(  # type: ignore[override] # `tune.with_parameters` passes the others
        self,
        config: dict[str, Any],
        todo: Mapping[int, tuple[list[Candidate], Path]],
        columns: Mapping[str, Combinable],
    ) -> None:
        """Takes the batch that `config` names, its file, and the predictions by checkpoint."""
        self.batch, self.path = todo[config["batch"]]
        self.columns = columns

    def step(self) -> dict[str, Any]:
        """The whole trial."""
        evaluations = self._evaluate()
        content = io.BytesIO()
        np.savez(
            content,
            honest_CN=[one.cross_fitted_N for one in evaluations],
            inner_CF=[one.inner_F for one in evaluations],
        )
        write_whole(self.path, content.getvalue())
        best = min(range(len(self.batch)), key=lambda index: np.nanmean(evaluations[index].inner_F))
        return {
            "error": float(np.nanmean(evaluations[best].inner_F)),
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
