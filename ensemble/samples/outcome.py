"""What is said of a member's out-of-fold losses: by bins of time, beside those of others on the same rows, times and
noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.samples.files import NUM_FACTS, REFERENCES, read_lists, split_kept
from ensemble.samples.metrics import describe_bins, score_zero


def describe_losses(lines: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Of `model`, `zero` (always the mean grey) and, where they are known, `floor` and `memoriser` the lines of
    `describe_bins`, of which the first is of all times."""
    target_N, loss_NS = split_kept(lines)
    losses = {"model": loss_NS, "zero": score_zero(target_N)}
    losses |= {name: one for name in REFERENCES if (one := read_lists(lines, name)) is not None}
    return {name: describe_bins(target_N[:, NUM_FACTS:], np.asarray(one)) for name, one in losses.items()}
