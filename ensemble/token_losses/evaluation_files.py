"""Files of an evaluation: `evaluation_<rows>.json` with the scores of each model, `documents_<rows>.csv` with the nats
of each document."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ensemble.members.comparison import Difference, compare_pair
from ensemble.token_losses.files import read_how, split_kept
from ensemble.token_losses.hardest import find_intervals
from ensemble.token_losses.scores import score_losses

if TYPE_CHECKING:
    from ensemble.kinds import Kind

_REFERENCE = "mean"
_COMPARED = "nats_per_token"
_RECORDED = ("perplexity", "nats_per_token", "bits_per_byte")


def write_evaluation(
    kind: Kind, tables: Mapping[str, pa.Table], rows: str, write: Callable[[str, bytes], None]
) -> tuple[list[str], list[list[str]], dict[str, Any]]:
    """What each model is worth on the same documents, and how much worse than the mean of all (the first, where there
    is no mean); arguments as in `Kind.write_evaluation`.

    Raises:
        PredictionError: they were not all scored alike.
    """
    window, stride = read_how(pa.concat_tables(list(tables.values())))
    reference = _REFERENCE if _REFERENCE in tables else next(iter(tables))
    kept = {name: split_kept(table) for name, table in tables.items()}
    target_N, reference_N = kept[reference]
    models: dict[str, Any] = {}
    lines, metrics = [], dict[str, Any]()
    for name, (_, nats_N) in kept.items():
        scores, ends = score_losses(target_N, nats_N), find_intervals(target_N, nats_N)
        models[name] = {"scores": scores, "interval_95": ends}
        shown = [name, f"{len(nats_N):,}", _show(scores, ends, "perplexity"), _show(scores, ends, "bits_per_byte")]
        if name != reference and len(nats_N) > 1:
            found = compare_pair(kind, _COMPARED, target_N, nats_N, reference_N)
            models[name]["minus_reference"] = {_COMPARED: found.difference, "interval_95": [found.low, found.high]}
            shown.append(_show_difference(found))
        lines.append([*shown, ""][:5])
        metrics |= {f"{name}/{score}": scores[score] for score in _RECORDED}
    facts = {"rows": rows, "window": window, "stride": stride, "reference": reference, "models": models}
    write(f"evaluation_{rows}.json", (json.dumps(facts, indent=2) + "\n").encode())
    ids = tables[reference]["id"].to_pylist()
    write(f"documents_{rows}.csv", _list_documents(ids, target_N, {name: nats_N for name, (_, nats_N) in kept.items()}))
    header = ["model", "documents", "perplexity [95 %]", "bits per byte [95 %]", f"nats a token above {reference}'s"]
    return header, lines, metrics


def _show(scores: Mapping[str, float | None], ends: Mapping[str, list[float]], name: str) -> str:
    value = scores[name]
    if value is None:
        return ""
    return f"{value:.4g} [{ends[name][0]:.4g}, {ends[name][1]:.4g}]" if name in ends else f"{value:.4g}"


def _show_difference(found: Difference) -> str:
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _list_documents(ids: list[str], target_N: np.ndarray, nats: Mapping[str, np.ndarray]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["ID", "tokens", "bytes", *nats])
    for name, truth, *values in zip(ids, target_N[:, :2].astype(int).tolist(), *nats.values(), strict=True):
        table.writerow([name, *truth, *(repr(float(value)) for value in values)])
    return text.getvalue().encode()
