"""Pictures of how good class probabilities are. Arrays in, matplotlib figures out.

Shape suffixes: N rows, C classes.
"""

from __future__ import annotations

from ensemble.pictures import Picture

PICTURES: tuple[str | Picture, ...] = (
    "members_and_combinations",
    "performance_by_fold",
    "loss_of_all_folds",
    "score_of_all_folds",
    "final_weights",
    "timings",
)
