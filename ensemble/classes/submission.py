"""What is submitted of classes: of each test row the likeliest class and the probability of each.

What is combined is the fold models of one member or, where there are several, the members.

Shape suffixes: M models that are combined, T test rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.classes.columns import ClassColumns, combine_members, read_test
from ensemble.classes.combine import measure_disagreement
from ensemble.classes.files import join_kept
from ensemble.classes.fitting import FittedClasses, fit_classes
from ensemble.classes.metrics import TO_ONE
from ensemble.classes.prediction_sets import find_basis, write_sets
from ensemble.classes.temperature import describe_calibration
from ensemble.combination import Combination, normalise_weights, weights_from_scores
from ensemble.run import Model, NoSubmissionError, Run, Submission

_RECORDED = ("level", "kind", "mean_size")


def submit(
    run: Run,
    how: Combination,
    columns: ClassColumns | None,
    read_scores: Callable[[], Mapping[str, Any]],
    models: Sequence[Model],
) -> Submission:
    """Combines the test predictions; arguments and errors as in `Kind.submit`, and how to combine."""
    test = read_test(run)
    if test is None:
        raise NoSubmissionError("the data has no test rows")
    ids_T, probability_FTC, classes = test
    probability_MTC = combine_members(run, probability_FTC)
    fitted = fit_run(run, how, columns, read_scores)
    combined_TC = fitted.predict(probability_MTC)
    spread_T = measure_disagreement(probability_MTC, combined_TC)
    names = name_classes(combined_TC, classes)
    facts = _describe(run, models, fitted.weights_M, combined_TC, spread_T)
    if columns is not None:
        (honest_NC,) = columns.predict_cross_fitted([how])
        facts["calibration"] = describe_calibration(columns, honest_NC)
    header = ["ID", run.target, *list_probability_names(classes)]
    lines = [
        [row_id, name, *(repr(float(value)) for value in row_C)]
        for row_id, name, row_C in zip(ids_T.tolist(), names, combined_TC, strict=True)
    ]
    if basis := find_basis(run, fitted):
        is_in_TC = basis.predict(probability_FTC)
        facts["interval"] = basis.describe(run, fitted, is_in_TC)
        header = [*header, name_sets(run.target)]
        lines = [[*line, text] for line, text in zip(lines, write_sets(is_in_TC, classes), strict=True)]
    return Submission(
        header,
        lines,
        _build_table(ids_T, probability_MTC, combined_TC, spread_T, classes),
        facts,
        {"ensemble/space": "probability"}
        | _list_metrics(read_scores()[next(iter(run.members))])
        | {
            f"ensemble/interval_{name}": value for name, value in facts.get("interval", {}).items() if name in _RECORDED
        },
    )


def _list_metrics(scores: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded of a member's out-of-fold scores, before and after temperature scaling."""
    if "calibration" not in scores:
        return {}
    overall, calibration = scores["out_of_fold"], scores["calibration"]
    recorded = {**overall[overall["checkpoint"]], "temperature": calibration["temperature"]}
    recorded |= {f"{name}_at_temperature": value for name, value in calibration["after"].items()}
    return {f"ensemble/{name}": value for name, value in recorded.items() if value is not None}


def name_sets(target: str) -> str:
    """The column of the sets of classes in a table for users."""
    return f"{target}_set"


def list_probability_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The column of each class in a table for users."""
    return tuple(f"probability_{name}" for name in classes)


def name_classes(probability_NC: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The likeliest class of each row."""
    return [classes[number] for number in probability_NC.argmax(axis=1).tolist()]


def fit_run(
    run: Run, how: Combination, columns: ClassColumns | None, read_scores: Callable[[], Mapping[str, Any]]
) -> FittedClasses:
    """The run's combination with its weights; arguments as in `submit`."""
    if columns is not None:
        return fit_classes(how, columns)
    if not how.is_fitted and how.weights is None:
        return FittedClasses(how)
    scores = read_scores()[next(iter(run.members))]
    if how.weights is not None:
        return FittedClasses(how, normalise_weights(how.weights, len(scores["folds"])))
    values_M = np.array([fold[run.ensemble.checkpoint][how.metric] for fold in scores["folds"]], np.float64)
    errors_M = 1 - values_M if how.metric in TO_ONE else values_M
    return FittedClasses(how, weights_from_scores(errors_M, how.weight_power))


def _build_table(
    ids_T: np.ndarray,
    probability_MTC: np.ndarray,
    combined_TC: np.ndarray,
    spread_T: np.ndarray,
    classes: Sequence[str],
) -> pa.Table:
    columns = {"id": pa.array(ids_T.tolist(), pa.string())}
    columns |= {f"model_{n}": pa.array(name_classes(one_TC, classes)) for n, one_TC in enumerate(probability_MTC)}
    columns |= {"prediction": pa.array(name_classes(combined_TC, classes)), "std": pa.array(spread_T)}
    columns["probability"] = join_kept(np.zeros(len(ids_T), int), combined_TC)["probability"]
    return pa.table(columns)


def _describe(
    run: Run,
    models: Sequence[Model],
    weights_M: np.ndarray | None,
    combined_TC: np.ndarray,
    spread_T: np.ndarray,
) -> dict[str, Any]:
    """Facts; `final_pred_...` are of the probability of the class that is submitted, its spread of the models'."""
    ensemble, sure_T = run.ensemble, combined_TC.max(axis=1)
    spread = {"prediction_diversity": spread_T.mean(), "pred_std_mean": spread_T.mean()}
    spread |= {"pred_std_max": spread_T.max(), "pred_std_min": spread_T.min()}
    facts = {
        "method": ensemble.method,
        "n_models": len(models),
        "checkpoints": ensemble.checkpoint,
        "test_samples": len(sure_T),
        "mean_std": float(spread_T.mean()),
        **{name: float(value) for name, value in spread.items()},
        "weights": None if weights_M is None else weights_M.tolist(),
        "model_weights": [{**model.label, **model.summary} for model in models],
        **{f"final_pred_{name}": float(getattr(sure_T, name)()) for name in ("min", "max", "mean", "std")},
    }
    return facts if run.combines_folds else facts | {"fold_method": ensemble.fold_method}
