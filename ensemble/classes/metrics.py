"""Scores of class probabilities by name, from each row's true class and its probabilities.

| name              | definition |
|---|---|
| log_loss          | mean of -ln p(true class), p no nearer to 0 than float64's resolution (as scikit-learn) |
| brier             | mean squared distance of the probabilities from the truth, of two half of it (as scikit-learn) |
| accuracy          | share of the rows whose likeliest class is the true one |
| balanced_accuracy | mean over the true classes of the share of their rows that are found |
| f1_macro          | mean F1 of the classes that are true or said |
| roc_auc_ovr       | mean area under the ROC curve of each class against the rest, of classes with rows in both |
| calibration_error | mean distance of the likeliest class's probability from the share that is right, in 15 bins |

The last is the expected calibration error of Guo et al. 2017, "On Calibration of Modern Neural Networks",
https://arxiv.org/abs/1706.04599, equation 3, with bins of equal width.

Log loss, Brier score and calibration error are better the lower they are; the error of the others is what is missing to
1. All but the area follow from sums over the rows, which bootstrap samples draw.

Shape suffixes: N rows, C classes, K candidates, S sums, U units that are drawn whole, D draws.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from ensemble.members.comparison import NUM_DRAWS, draw_counts, number_units

SCORES = (
    "log_loss", "brier", "accuracy", "balanced_accuracy", "f1_macro", "roc_auc_ovr", "calibration_error"
)  # fmt: skip
TO_ONE = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc_ovr")  # higher is better, 1 is the most
NUM_BINS = 15
_NUM_AREA_DRAWS = 200
_LEAST = np.finfo(np.float64).eps


def score_classes(target_N: np.ndarray, probability_NC: np.ndarray) -> dict[str, float | None]:
    """Every score; None where one is not defined for these rows."""
    scores: dict[str, float | None] = {}
    for name in SCORES:
        try:
            error = measure_error(name, target_N, probability_NC)
        except ValueError:
            scores[name] = None
        else:
            scores[name] = 1 - error if name in TO_ONE else error
    return scores


def measure_error(metric: str, target_N: np.ndarray, probability_NC: np.ndarray) -> float:
    """The error by a metric's name; lower is better.

    Raises:
        ValueError: an unknown metric, or rows for which it is not defined.
    """
    check_metric(metric)
    if not len(target_N):
        raise ValueError(f"{metric} is not defined without a row")
    _check_known(target_N)
    if metric == "roc_auc_ovr":
        return 1 - measure_area(target_N, probability_NC)
    sums_S = np.asarray(_list_statistics(metric, target_N, probability_NC).sum(axis=0)).ravel()
    return float(_finish(metric, sums_S[None], len(target_N), probability_NC.shape[1])[0])


def check_metric(metric: str) -> None:
    """Raises ValueError for other metrics than these."""
    if metric not in SCORES:
        raise ValueError(f"expected one of {', '.join(SCORES)}, by which classes are compared")


def measure_area(target_N: np.ndarray, probability_NC: np.ndarray) -> float:
    """The mean area under the ROC curve of each class against the rest.

    Raises:
        ValueError: all rows are of one class.
    """
    from sklearn.metrics import roc_auc_score  # 1 s to import

    counts_C = np.bincount(target_N, minlength=probability_NC.shape[1])
    classes = np.flatnonzero((counts_C > 0) & (counts_C < len(target_N)))
    if not len(classes):
        raise ValueError(f"roc_auc_ovr is not defined for these {len(target_N)} rows, which are all of one class")
    return float(np.mean([roc_auc_score(target_N == one, probability_NC[:, one]) for one in classes]))


def draw_errors(
    metric: str,
    target_N: np.ndarray,
    predictions_KNC: np.ndarray,
    unit_N: np.ndarray | None = None,
    num_draws: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of all rows, (K,), and of drawn ones, (D, K); arguments as in `Kind.draw_errors`. Without `num_draws`
    2,000 samples, or 200 for the area, which takes longer. Samples of one class are left out of these."""
    check_metric(metric)
    predictions_KNC, num_rows = np.asarray(predictions_KNC), len(target_N)
    unit_N, num_units = number_units(unit_N, num_rows)
    whole = np.array([measure_error(metric, target_N, one_NC) for one_NC in predictions_KNC])
    if metric == "roc_auc_ovr":
        blocks = draw_counts(num_units, num_draws or _NUM_AREA_DRAWS, seed)
        parts = [_measure_areas(target_N, predictions_KNC, c_DU[:, unit_N]) for c_DU in blocks]
        drawn_DK = np.concatenate(parts)
        drawn_DK = drawn_DK[np.isfinite(drawn_DK).all(axis=1)]
        if not len(drawn_DK):
            raise ValueError(f"{metric} is not defined for any sample of these {num_rows} rows")
        return whole, 1 - drawn_DK
    in_unit_UN = csr_array((np.ones(num_rows), (unit_N, np.arange(num_rows))), shape=(num_units, num_rows))
    sums_KUS = [in_unit_UN @ _list_statistics(metric, target_N, one_NC) for one_NC in predictions_KNC]
    sizes_U, parts = np.bincount(unit_N).astype(np.float64), []
    for c_DU in draw_counts(num_units, num_draws or NUM_DRAWS, seed):
        sizes_D = c_DU @ sizes_U
        errors = [_finish(metric, c_DU @ sums_US, sizes_D, predictions_KNC.shape[2]) for sums_US in sums_KUS]
        parts.append(np.stack(errors, axis=1))
    return whole, np.concatenate(parts)


def _measure_areas(target_N: np.ndarray, predictions_KNC: np.ndarray, counts_DN: np.ndarray) -> np.ndarray:
    """`measure_area` of samples in which each row is so many times, (D, K); NaN where all rows are of one class.

    The area is the chance that a row of the class has a higher probability than one of the rest, equal ones half
    (Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747); rows are sorted once for all samples."""
    areas_DK, num_classes = np.empty((len(counts_DN), len(predictions_KNC))), predictions_KNC.shape[2]
    for candidate, probability_NC in enumerate(predictions_KNC):
        areas_DC = np.full((len(counts_DN), num_classes), np.nan)
        for one in range(num_classes):
            order = np.argsort(probability_NC[:, one], kind="stable")
            sorted_N, is_it_N = probability_NC[order, one], target_N[order] == one
            starts = np.flatnonzero(np.append(True, sorted_N[1:] != sorted_N[:-1]))
            counts = counts_DN[:, order]
            own_DG, rest_DG = (np.add.reduceat(counts * which, starts, axis=1) for which in (is_it_N, ~is_it_N))
            lower_DG = rest_DG.cumsum(axis=1) - rest_DG
            pairs_D = own_DG.sum(axis=1) * rest_DG.sum(axis=1)
            known = pairs_D > 0
            areas_DC[known, one] = (own_DG * (lower_DG + rest_DG / 2)).sum(axis=1)[known] / pairs_D[known]
        num_known_D = np.isfinite(areas_DC).sum(axis=1)
        sums_D = np.nan_to_num(areas_DC).sum(axis=1)
        areas_DK[:, candidate] = np.where(num_known_D > 0, sums_D / np.maximum(num_known_D, 1), np.nan)
    return areas_DK


def _check_known(target_N: np.ndarray) -> None:
    if (target_N < 0).any():
        raise ValueError(f"the true class of {(target_N < 0).sum()} of {len(target_N)} rows is not known")


def row_losses(target_N: np.ndarray, probability_NC: np.ndarray) -> np.ndarray:
    """Each row's log loss in nats, (N,)."""
    true_N = np.take_along_axis(probability_NC, target_N[:, None], axis=1)[:, 0]
    losses_N: np.ndarray = -np.log(np.clip(true_N, _LEAST, 1))
    return losses_N


def _row_distances(target_N: np.ndarray, probability_NC: np.ndarray) -> np.ndarray:
    """Each row's Brier score, (N,)."""
    num_classes = probability_NC.shape[1]
    distance_N: np.ndarray = ((probability_NC - np.eye(num_classes)[target_N]) ** 2).sum(axis=1)
    if num_classes == 2:
        distance_N /= 2
    return distance_N


def find_bins(probability_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row the likeliest class, its probability, and the bin of that, (N,) each."""
    said_N = probability_NC.argmax(axis=1)
    sure_N = np.take_along_axis(probability_NC, said_N[:, None], axis=1)[:, 0]
    bin_N = np.minimum((sure_N * NUM_BINS).astype(int), NUM_BINS - 1)
    return said_N, sure_N, bin_N


def _list_statistics(metric: str, target_N: np.ndarray, probability_NC: np.ndarray) -> csr_array:
    """What is summed over the rows, (N, S)."""
    num_rows, num_classes = probability_NC.shape
    rows = np.arange(num_rows)
    if metric in ("log_loss", "brier", "accuracy"):
        values_N = _OF_ROWS[metric](target_N, probability_NC)
        return csr_array(values_N[:, None])
    if metric == "calibration_error":
        said_N, sure_N, bin_N = find_bins(probability_NC)
        return csr_array((sure_N - (said_N == target_N), (rows, bin_N)), shape=(num_rows, NUM_BINS))
    said_N = probability_NC.argmax(axis=1)
    is_right_N = (said_N == target_N).astype(np.float64)  # rightly said, said and true rows of each class
    places = np.concatenate([said_N, num_classes + said_N, 2 * num_classes + target_N])
    ones_N = np.ones(num_rows)
    values = np.concatenate([is_right_N, ones_N, ones_N])
    return csr_array((values, (np.tile(rows, 3), places)), shape=(num_rows, 3 * num_classes))


def _finish(metric: str, sums_DS: np.ndarray, sizes_D: np.ndarray | int, num_classes: int) -> np.ndarray:
    """The errors of samples from their sums, (D,)."""
    if metric == "calibration_error":
        errors_D: np.ndarray = np.abs(sums_DS).sum(axis=1) / sizes_D
        return errors_D
    if metric in _OF_ROWS:
        errors_D = sums_DS[:, 0] / sizes_D
        return errors_D
    right_DC, said_DC, true_DC = np.split(sums_DS, 3, axis=1)
    if metric == "balanced_accuracy":
        known_DC, whole_DC, part_DC = true_DC > 0, true_DC, right_DC
    else:
        known_DC, whole_DC, part_DC = (said_DC + true_DC) > 0, said_DC + true_DC, 2 * right_DC
    values_DC = np.where(known_DC, part_DC / np.where(known_DC, whole_DC, 1), 0)
    errors_D = 1 - values_DC.sum(axis=1) / known_DC.sum(axis=1)
    return errors_D


def _row_mistakes(target_N: np.ndarray, probability_NC: np.ndarray) -> np.ndarray:
    mistakes_N: np.ndarray = (probability_NC.argmax(axis=1) != target_N).astype(np.float64)
    return mistakes_N


_OF_ROWS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "log_loss": row_losses,
    "brier": _row_distances,
    "accuracy": _row_mistakes,
}
