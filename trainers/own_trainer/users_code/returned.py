"""What a function has returned, as predictions of each set of rows; what is wrong with it is said with its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SETS = ("validation", "test", "blend")
_TOLERANCE = 1e-3  # as half precision may miss
_FORM = (
    "expected (validation predictions, test predictions), the validation predictions alone, a dict with 'validation', "
    "'test', 'blend' and 'model', or a third item: the fitted model"
)


class ReturnedError(ValueError):
    """A function has returned something else than predictions of the fold's rows."""


def take_apart(returned: Any) -> dict[str, Any]:
    """What was returned by `validation`, `test`, `blend`, `model`; what is None is left out.

    Raises:
        ReturnedError: it has another form.
    """
    if returned is None:
        return {}
    if isinstance(returned, Mapping):
        if unknown := [name for name in returned if name not in (*SETS, "model")]:
            raise ReturnedError(f"the function returned a dict with {unknown[0]!r}: {_FORM}")
        found = dict(returned)
    elif isinstance(returned, tuple):
        if not 1 <= len(returned) <= 3:
            raise ReturnedError(f"the function returned {len(returned)} items: {_FORM}")
        found = dict(zip(("validation", "test", "model"), returned, strict=False))
    elif hasattr(returned, "predict") and not hasattr(returned, "shape"):
        found = {"model": returned}
    else:
        found = {"validation": returned}
    return {name: value for name, value in found.items() if value is not None}


def check_numbers(predicted: Any, what: str, num_rows: int) -> np.ndarray:
    """Predictions of the rows of a set, (N,) float64.

    Raises:
        ReturnedError: they are of another length or shape, are no numbers, or some are NaN or infinite.
    """
    values = _as_array(predicted, what)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ReturnedError(
            f"the {what} predictions have the shape {values.shape}: expected ({num_rows},), one each row"
        )
    _refuse_length(len(values), what, num_rows)
    _refuse_not_finite(values, what)
    return values


def check_probabilities(predicted: Any, what: str, num_rows: int, classes: Sequence[str]) -> np.ndarray:
    """Class probabilities of the rows of a set, (N, C) float64, those of a row adding up to 1; of two classes that of
    the second one, (N,), is enough.

    Raises:
        ReturnedError: they are of another length or shape, or are no probabilities.
    """
    values = _as_array(predicted, what)
    if len(classes) == 2 and (values.ndim == 1 or values.shape[1:] == (1,)):
        values = np.column_stack([1 - values.ravel(), values.ravel()])
    if values.ndim != 2 or values.shape[1] != len(classes):
        raise ReturnedError(
            f"the {what} predictions have the shape {values.shape}: expected ({num_rows}, {len(classes)}), the "
            f"probability of each of the classes {', '.join(classes)} (fold.classes), as predict_proba gives them"
        )
    _refuse_length(len(values), what, num_rows)
    _refuse_not_finite(values, what)
    wrong_N = (values < 0).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > _TOLERANCE)
    if wrong_N.any():
        row = int(np.flatnonzero(wrong_N)[0])
        raise ReturnedError(
            f"{wrong_N.sum()} of {len(values)} {what} predictions are no probabilities, such as {values[row].tolist()} "
            f"in row {row} of fold.{what}: expected numbers from 0 that add up to 1"
        )
    probability_NC: np.ndarray = values / values.sum(axis=1, keepdims=True)
    return probability_NC


def _as_array(predicted: Any, what: str) -> np.ndarray:
    if hasattr(predicted, "detach"):
        predicted = predicted.detach().cpu().float().numpy()
    try:
        return np.asarray(predicted, np.float64)
    except (TypeError, ValueError) as error:
        raise ReturnedError(f"the {what} predictions are a {type(predicted).__name__} of no numbers: {error}") from None


def _refuse_length(found: int, what: str, num_rows: int) -> None:
    if found != num_rows:
        raise ReturnedError(
            f"{found} {what} predictions for {num_rows} rows: expected one for each row of fold.{what}, in its order"
        )


def _refuse_not_finite(values: np.ndarray, what: str) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        raise ReturnedError(
            f"{bad.any(axis=tuple(range(1, bad.ndim))).sum()} of {len(values)} {what} predictions are NaN or infinite, "
            f"the first in row {row} of fold.{what}"
        )
