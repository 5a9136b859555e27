"""Predicts new rows with a finished run's ensemble; nothing is trained, and the run stays as it is.

    python ray_jobs/predict.py auctions --data new.csv --output prices.csv
    python ray_jobs/predict.py slices --data pictures --output masks --threshold 0.4

Members, weights and checkpoint are those of the run's submission, and so is a field that is not given.

Of a run that predicts maps the output has masks/, overlays/, disagreement/ and summary.csv, with Dice and IoU where the
truth is known. It appears whole, in the place of an earlier prediction; a folder that holds anything else is refused.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ensemble.config import EnsembleConfig
from ray_jobs.cli.arguments import OfRun, parse
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_whole_run
from ray_jobs.config.overrides import override
from ray_jobs.config.resources import ResourcesConfig
from ray_jobs.errors import RunError
from ray_jobs.runs.location import find_refit


@dataclass(frozen=True)
class Arguments(OfRun):
    """What is typed besides fields."""

    data: str | None = None
    """The new rows, which need no target: a .csv or .parquet table, or a folder with one that is named as
    data.test_table says; beside the table lies the folder of its pictures, data.test_pictures. Of maps: a picture or a
    folder of pictures."""
    output: str | None = None
    """A file that ends in .csv or .parquet, or of maps a folder; by default predictions/<name of the data>_<method> in
    the run's folder."""
    models: bool = False
    """Add what each model predicts and their standard deviation."""
    threshold: float | None = None
    """Of maps: ensemble.threshold."""
    refit: bool = False
    """By the one model of all rows that refit.py has trained, instead of the ensemble."""
    soup: bool = False
    """By the mean of the weights of the run's fold models, where these began with the same ones."""
    masks: str | None = None
    """Of maps: a folder of masks that are known, if it is not data.masks beside the pictures."""


def main(argv: list[str]) -> int:
    offered = {"ensemble": EnsembleConfig(), "resources": ResourcesConfig()}
    typed = parse("predict.py", argv, __doc__, Arguments, offered)
    given, words = typed.arguments, typed.fields
    if given.refit and given.soup:
        raise RunError("--refit and --soup: expected one of both, as each is a model of its own")
    folder = find_whole_run(find_refit(given.run) if given.refit else given.run, typed.storage)
    config = folder.read_config()
    if not given.data:
        from trainers.interface import load_new_rows_module

        raise RunError(f"--data is missing: expected {load_new_rows_module(config.family).PLACES}")
    for option, place in {"data": given.data, "output": given.output, "masks": given.masks}.items():
        if place and "://" in place:
            raise RunError(
                f"--{option}={place}: expected a folder or file on this machine, not in object storage; copy the table "
                "and its pictures first, as by `aws s3 cp --recursive`"
            )
    if given.threshold is not None:
        if "threshold" not in config.kind.offers:
            raise RunError(
                f"--threshold={given.threshold:g}: expected none for {config.kind.title}, which this run predicts"
            )
        words = [*words, f"ensemble.threshold={given.threshold}"]
    config = override(config, words, sections=tuple(offered))
    from ray_jobs.prediction.job import PredictRequest, predict_rows

    output, truth = (Path(os.path.expanduser(place)) if place else None for place in (given.output, given.masks))
    return predict_rows(
        folder, config, PredictRequest(Path(os.path.expanduser(given.data)), output, given.models, truth, given.soup)
    )


if __name__ == "__main__":
    main_with_errors(main)
