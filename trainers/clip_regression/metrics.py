"""The metrics that only this family records, for the list of all metrics."""

from __future__ import annotations

from trainers.families import BEST, EPOCH, REPORTED, SUBMITTED, Metrics

METRICS = (
    Metrics(
        "fold",
        EPOCH,
        {
            "fold_{i}/val/msle": "mean squared log error of the validation rows: the score",
            "fold_{i}/val/mae": "mean absolute error, in the target's unit",
            "fold_{i}/val/mse": "mean squared error, in the target's unit squared",
            "fold_{i}/val/rmse": "root of the mean squared error",
        },
        kind="number",
    ),
    Metrics(
        "fold",
        EPOCH,
        {
            "fold_{i}/val/log_loss": "mean of -ln(probability of the true class) of the validation rows: the score",
            "fold_{i}/val/accuracy": "share of the validation rows whose likeliest class is the true one",
            "fold_{i}/predictions/confidence": "mean probability of the likeliest class; above the accuracy: too sure",
        },
        kind="classes",
    ),
    Metrics(
        "fold",
        EPOCH,
        {
            "fold_{i}/predictions/mean": "mean prediction of the validation rows",
            "fold_{i}/predictions/std": "standard deviation of these predictions",
            "fold_{i}/targets/mean": "mean target of the validation rows",
            "fold_{i}/targets/std": "standard deviation of these targets",
        },
        kind="number",
    ),
    Metrics(
        "fold",
        EPOCH,
        {
            "fold_{i}/weights/image": "weight α of the picture; α, β and γ add up to 1",
            "fold_{i}/weights/text": "weight β of the text",
            "fold_{i}/weights/age": "weight γ of the age and the other numbers",
        },
    ),
    Metrics(
        "fold",
        BEST,
        {
            "fold_{i}/best_epoch": "epoch with the best score",
            "fold_{i}/best_val_loss": "validation loss of that epoch",
        },
    ),
    Metrics("fold", BEST, {"fold_{i}/best_msle": "MSLE of that epoch"}, kind="number"),
    Metrics("fold", BEST, {"fold_{i}/best_log_loss": "log loss of that epoch"}, kind="classes"),
    Metrics(
        "submission",
        SUBMITTED,
        {
            "ensemble/model_{i}/image_weight": "weight α of the picture in this model",
            "ensemble/model_{i}/text_weight": "weight β of the text",
            "ensemble/model_{i}/age_weight": "weight γ of the age",
        },
    ),
    Metrics("submission", REPORTED, {"ensemble/figures/modality_weights": "figure: α, β and γ over the epochs"}),
)
