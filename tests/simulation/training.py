"""A trainer whose state is small: a counter, sums of random numbers, and every random generator. What it learns is
known for each step, so that "the same bits" can be asked at any moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from trainers.interface import Inventory, Progress, ResumePoint, Split
from trainers.predictions import Predictions

EPOCHS, STEPS = 3, 3  # of an epoch
STEP_S, VALIDATION_S = 0.6, 1.0
ROWS = [f"r{number:02}" for number in range(12)]
TEST_ROWS = [f"t{number}" for number in range(4)]
TARGET = {row: 10.0 + 3.0 * number for number, row in enumerate(ROWS)}


class Training:
    """Stands where a family's `train` module does.

    Attributes:
        work: called where a real trainer would compute, with seconds.
        begin: called with (fold, step, whether it is validated) when an attempt begins or goes on from a point.
        see: called with (fold, step, state) then, and after each step.
    """

    def __init__(self) -> None:
        self.work: Callable[[float], None] = lambda seconds: None
        self.begin: Callable[[int, int, bool], None] = lambda fold, step, is_validated: None
        self.see: Callable[[int, int, bytes], None] = lambda fold, step, state: None

    def train_fold(self, config: Any, split: Split, context: Any) -> None:
        """See the module."""
        seed = split.fold + 1
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        sums, step, best = torch.zeros(4, dtype=torch.float64), 0, float("inf")
        point = context.load_resume_point()
        if point is not None:
            sums, step = point.tensors["sums"].clone(), point.facts["step"]
            best = point.facts["best"] if point.facts["best"] is not None else best
        is_validated = point is not None and bool(point.facts["is_validated"])
        self.begin(split.fold, step, is_validated)
        self.see(split.fold, step, _describe(sums))
        while step < EPOCHS * STEPS or not is_validated:
            epoch = (step - 1) // STEPS if step and not is_validated and step % STEPS == 0 else step // STEPS
            if not (step and step % STEPS == 0 and not is_validated):
                sums, step, is_validated = self._do_step(sums), step + 1, False
                context.log_step(step, {"train/loss_step": sums.sum().float(), "learning_rate": 0.1 / step})
                counts = Progress(step, EPOCHS * STEPS, epoch, EPOCHS, (step - 1) % STEPS + 1, STEPS)
                context.report_progress(counts)
                self.see(split.fold, step, _describe(sums))
                if context.is_resume_point_due(step):
                    context.save_resume_point(_describe_point(sums, step, best, is_validated=False), step)
                continue
            context.touch()
            self.work(VALIDATION_S)
            score = float(torch.sin(sums.sum()))
            epoch = step // STEPS - 1
            context.report_epoch(
                epoch, EPOCHS, step,
                {"train/loss_epoch": float(sums[0]), "val/loss_epoch": float(sums[1]), "val/error": score, "score": score},
            )  # fmt: skip
            if score < best:
                best = score
                context.save_checkpoint("best", {"sums": sums}, {"epoch": epoch, "model_summary": {}})
            is_validated = True
            context.save_resume_point(_describe_point(sums, step, best, is_validated=True), step)
        context.save_checkpoint("final", {"sums": sums}, {"epoch": EPOCHS - 1, "model_summary": {}})
        for name in ("best", "final"):
            sums = context.load_checkpoint(name)["sums"]
            for rows, ids in (("validation", split.validation_ids), ("test", np.array(TEST_ROWS))):
                self.work(0.2)
                context.save_predictions(name, rows, ids, [_predict(sums, ids)])

    def _do_step(self, sums: torch.Tensor) -> torch.Tensor:
        self.work(STEP_S)
        drawn = [random.random(), float(np.random.random()), float(torch.rand(1, dtype=torch.float64)), 1.0]
        return 0.9 * sums + torch.tensor(drawn, dtype=torch.float64)


def make_inventory() -> Inventory:
    """The rows."""
    return Inventory(
        ids=np.array(ROWS), target=np.array([TARGET[row] for row in ROWS]), target_name="price", num_test=len(TEST_ROWS),
        fingerprint="the rows of the simulation", test_ids=np.array(TEST_ROWS),
    )  # fmt: skip


def _describe(sums: torch.Tensor) -> bytes:
    return (
        sums.numpy().tobytes() + torch.get_rng_state().numpy().tobytes()[:64] + repr(random.getstate()[1][-1]).encode()
    )


def _describe_point(sums: torch.Tensor, step: int, best: float, *, is_validated: bool) -> ResumePoint:
    facts = {"step": step, "best": None if best == float("inf") else best, "is_validated": is_validated}
    return ResumePoint({"sums": sums.clone()}, {}, facts)


def _predict(sums: torch.Tensor, ids: np.ndarray) -> Predictions:
    numbers = np.array([float(str(one)[1:]) for one in ids])
    z = np.log1p(10.0 + 3.0 * numbers) + 0.01 * float(sums.sum())
    target = np.array([TARGET.get(str(one), np.nan) for one in ids])
    return Predictions(ids, np.expm1(z), z, target)
