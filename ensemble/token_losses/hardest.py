"""Documents by their loss out of fold: those with the most bits for each byte are often broken, and those that a model
knows too well may have a twin among its training documents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.token_losses.files import read_how, split_kept
from ensemble.token_losses.scores import SCORES, draw_errors

MOST_LISTED = 50
_LEVEL = (0.025, 0.975)


def order_documents(lines: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the documents from the hardest to the easiest, (N,), and the bits for each byte of all, (N,)."""
    target_N, nats_N = split_kept(lines)
    bits_N = nats_N / (math.log(2) * np.maximum(target_N[:, 1], 1))
    return np.argsort(-bits_N, kind="stable"), bits_N


def describe_lines(lines: pa.Table) -> dict[str, Any]:
    """What the summary says of the documents of a member: how they were scored, intervals of the scores over documents,
    and the hardest documents."""
    target_N, nats_N = split_kept(lines)
    order, bits_N = order_documents(lines)
    window, stride = read_how(lines)
    return {
        "scored_with": {"window": window, "stride": stride},
        "interval_95": find_intervals(target_N, nats_N),
        "hardest_documents": [
            {
                "id": lines["id"][row].as_py(),
                "fold": lines["fold"][row].as_py(),
                "bits_per_byte": float(bits_N[row]),
                "nats": float(nats_N[row]),
                "tokens": int(target_N[row, 0]),
            }
            for row in order[:MOST_LISTED].tolist()
        ],
    }


def find_intervals(target_N: np.ndarray, nats_N: np.ndarray) -> dict[str, list[float]]:
    """Of each score that is defined its 95 % interval: documents drawn with replacement (percentile bootstrap). None of
    a single document."""
    found = {}
    for name in SCORES:
        try:
            _, drawn_DC = draw_errors(name, target_N, nats_N[None])
        except ValueError:
            continue
        found[name] = [float(value) for value in np.nanquantile(drawn_DC[:, 0], _LEVEL)]
    return found
