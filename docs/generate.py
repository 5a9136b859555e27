"""Writes the pages that are made from tables in the code: metrics.md and run-folder.md.

python docs/generate.py      (`make docs`)
"""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from docs.catalogue import CATALOGUE, TUNING_CATALOGUE
from ray_jobs.config.recipes import RECIPES
from ray_jobs.runs.file_table import FILES, RunFile, list_files

LINE_LENGTH = 118
NOTE = "<!-- Written by docs/generate.py (`make docs`). Edit {source} instead. -->\n"

METRICS_HEAD = """# Metrics

Every metric by its exact name. Each W&B run has a section; each moment at which a row is written has a table.
`{i}` stands for the number of a fold or model, from 0. The names are the same in W&B and in `metrics/*.jsonl`.
`{experiment}` is `tracking.name`, by default `run.name`; it is also the group of the W&B runs.
A trainer may record more; such metrics appear under their own names. See [Tracking](tracking.md).
"""
TITLES = {
    "fold": "`{experiment}_fold{i}`: a fold",
    "ensemble": "`{experiment}_ensemble`: the coordination of the folds",
    "submission": "`{experiment}_submission`: the ensemble and its submission",
    "trial": "`{experiment}_trial_{n}`: a trial of a tuning",
}

FILES_HEAD = """# The folder of a run

A run is the folder `<run.storage>/<run.name>/`, by default below `~/ray_results`. Its own `README.md` lists its files.

- Prediction files have the columns `id, member, repeat, fold, checkpoint, in_sample, target, prediction, prediction_z`.
- Checkpoints are safetensors and JSON
  (architecture, preprocessing, target statistics, config). Reading one runs no code, unless a function of the user's
  own has kept a model in it ([Your own trainer](own-trainer.md)): its description then says `holds_code`.
- No file of a run holds a key or a token.
- A run of `train.py` has no folds: its CSV files are in `metrics/`, its logs in `log/`.
- A tuning's folder is described in [Tuning](tuning.md).

*best* is the epoch with the best score on the fold's own validation rows (the lowest MSLE; of masks the highest Dice).
Its score there is a little optimistic. *final* is the last epoch, which nobody chose
(but `training.patience`, if it is set). Both are scored side by side.
"""


def write_metrics() -> str:
    """The text of metrics.md."""
    lines = [
        NOTE.format(source="docs/catalogue.py, a family's metrics.py or a kind's kind.py"),
        METRICS_HEAD,
    ]
    for run, of_run in itertools.groupby((*CATALOGUE, *TUNING_CATALOGUE), key=lambda metrics: metrics.run):
        lines += [f"## {TITLES[run]}", ""]
        for moment, together in itertools.groupby(of_run, key=lambda metrics: metrics.moment):
            lines += [f"**{moment[0].upper()}{moment[1:]}**", "", "| metric | meaning |", "|---|---|"]
            lines += [f"| `{name}` | {text} |" for metrics in together for name, text in metrics.meanings.items()]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def write_run_folder() -> str:
    """The text of run-folder.md."""
    lines = [NOTE.format(source="ray_jobs/runs/file_table.py or the kind.py of a kind of predictions"), FILES_HEAD]
    of_all = [file for file in FILES if file.is_listed and not file.of_kind and not file.needs]
    lines += ["## Every run", "", *_list_files(of_all)]
    kinds = {kind.name: kind for kind in (make().kind for make in RECIPES.values())}
    for kind in kinds.values():
        lines += ["", f"## Runs that predict {kind.title}", "", "These files are additional, or hold more:", ""]
        lines += _list_files(file for file in list_files(kind) if file.name in kind.files or file.needs)
    return "\n".join(lines) + "\n"


def _list_files(files: Iterable[RunFile]) -> list[str]:
    return [
        textwrap.fill(
            f"- `{file.name}`: {file.about.replace('<', chr(92) + '<')}",
            LINE_LENGTH,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for file in files
    ]


PAGES = {"metrics.md": write_metrics, "run-folder.md": write_run_folder}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (DOCS / name).write_text(write())
