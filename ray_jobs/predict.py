"""Predicts new rows with a finished run's ensemble; nothing is trained, and the run stays as it is.

    python ray_jobs/predict.py RUN --data NEW [--output FILE] [--models] [ensemble.method=median ...] [run.storage=~/ray_results]
    python ray_jobs/predict.py RUN --data PICTURES [--output FOLDER] [--threshold 0.5] [--masks FOLDER] [--models] ...

RUN is a run's folder, or its name below run.storage. NEW is a .csv or .parquet table, or a folder with one that is named as
data.test_table says; beside the table lies the folder of its pictures, data.test_pictures. It needs no target. FILE ends in .csv or
.parquet; without it the predictions go to RUN/predictions/<name of NEW>_<method>.csv. --models adds what each model predicts and
their standard deviation.

Of a run that predicts maps NEW is a picture or a folder of pictures. FOLDER gets masks/, overlays/, disagreement/ and summary.csv, with
Dice and IoU where a mask of the same name lies in the folder data.masks beside them, or in --masks. It appears whole, in the place of an
earlier prediction; a folder that holds anything else is refused. Members, weights and checkpoint are those of the run's submission; ensemble.* and resources.* may differ.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_whole_run
from ray_jobs.config.overrides import override
from ray_jobs.errors import RunError


def main(argv: list[str]) -> int:
    folder, words = find_whole_run(argv, __doc__)
    given, words = take_options(words)
    config = override(folder.read_config(), words, __doc__, sections=("ensemble", "resources"))
    if "data" not in given:
        from trainers.interface import load_new_rows_module

        raise RunError(f"which rows? `--data NEW` names {load_new_rows_module(config.family).PLACES}")
    for option, place in given.items():
        if "://" in place:
            raise RunError(
                f"--{option} {place}: new rows are read from a folder and written to one, not to object storage; copy the table and its "
                f"pictures first, as by `aws s3 cp --recursive`"
            )
    if "threshold" in given:
        if "threshold" not in config.kind.offers:
            raise RunError(f"--threshold is not for {config.kind.title}, which this run predicts")
        config = override(config, [f"ensemble.threshold={given['threshold']}"], sections=("ensemble",))
    from ray_jobs.prediction.job import Wish, predict_rows

    output = Path(given["output"]).expanduser() if "output" in given else None
    truth = Path(given["masks"]).expanduser() if "masks" in given else None
    return predict_rows(folder, config, Wish(Path(given["data"]).expanduser(), output, "models" in given, truth))


def take_options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """`--data NEW`, `--output=FILE`, `--threshold`, `--masks` and `--models` by name, and the other words.

    Raises:
        RunError: an option has no value.
    """
    given, rest, waiting = {}, [], list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if word == "--models":
            given["models"] = ""
        elif word.startswith("--") and name in ("data", "output", "threshold", "masks"):
            value = value if equals else (waiting.pop(0) if waiting else "")
            if not value:
                raise RunError(f"--{name} has no value; usage: predict.py RUN --data NEW [--output FILE]")
            given[name] = value
        else:
            rest.append(word)
    return given, rest


if __name__ == "__main__":
    main_with_errors(main)
