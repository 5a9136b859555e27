"""Evaluates a finished run's models on rows whose truth is known, in this process: no cluster is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.table import Table

from ray_jobs.cli.console import open_console
from ray_jobs.cli.places import refuse_unwritable
from ray_jobs.config.overrides import with_wandb_environment
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import EXIT_OK, RunError
from ray_jobs.prediction.blend_rows import open_blend_rows
from ray_jobs.prediction.generation import choose_device
from ray_jobs.prediction.models import read_models, refuse_unusable
from ray_jobs.results.run_files import list_combined_folds
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import open_cache
from ray_jobs.runs.record import MetricRecord
from ray_jobs.runs.remote.run_mirror import hold_run
from ray_jobs.tracking.wandb_sink import WandbSink
from trainers.interface import TrainedModel, load_evaluate_module, load_new_rows_module
from trainers.storage.whole_files import write_whole


@dataclass(frozen=True)
class EvaluateRequest:
    """What the user wants: the rows at a place (None: the run's test rows), or those of its blend set; the family's
    options, the folder for files (None: one in the run's), device, threads, and whether the models before are
    evaluated, too."""

    place: Path | None
    blend: bool
    options: Any
    output: Path | None
    device: str
    num_threads: int
    is_ablation: bool = False


def find_options(folder: RunFolder) -> type[Any]:
    """The options of the run's family.

    Raises:
        RunError: it has no evaluation of its own.
    """
    family = folder.read_config().family
    module = load_evaluate_module(family)
    if module is None:
        raise RunError(
            f"{folder.root.name} is a run of {family}, which has no evaluation of its own: expected a run of a family "
            "with an evaluate.py; its report.html has the scores of this one"
        )
    options: type[Any] = module.Options
    return options


def evaluate(folder: RunFolder, config: RunConfig, request: EvaluateRequest) -> int:
    """The job.

    Raises:
        RunError, ValueError: nothing was evaluated; the message says why.
    """
    refuse_unusable(folder, config)
    console, device = open_console(), choose_device(request.device)
    rows, name = _find_rows(folder, config, request)
    number = rows.check()
    what = "ablation" if request.is_ablation else request.options.model or "models"
    output = request.output or folder.root / "evaluation" / f"{what}_{name}"
    refuse_unwritable(output if output.exists() else _find_parent(output), "--output_dir FOLDER names another place")
    of_blend = " in the blend set" * request.blend
    console.print(f"run {folder.root.name}: {number:,} rows of {rows.path}{of_blend}", highlight=False)
    module: Any = load_evaluate_module(config.family)
    found = module.evaluate(
        _open_models(folder, config), rows, request.options, open_cache(folder.cache), device, request.num_threads,
        is_ablation=request.is_ablation,
    )  # fmt: skip
    tables = {whose: _tabulate(config, whose, answered) for whose, answered in found}
    columns, lines, metrics = config.kind.write_evaluation(tables, name, partial(_write, output))
    shown = Table(*columns)
    for line in lines:
        shown.add_row(*line)
    console.print(shown)
    console.print(f"written: {output}", soft_wrap=True, highlight=False)
    whose = request.options.model or config.ensemble.checkpoint
    study = "ablation-study" if request.is_ablation else f"evaluation-{whose}"
    _record(folder, f"{study}-{datetime.now():%Y%m%d-%H%M%S}", metrics, partial(console.print, style="dim"))
    return EXIT_OK


def _find_rows(folder: RunFolder, config: RunConfig, request: EvaluateRequest) -> tuple[Any, str]:
    """The rows, and what they are in a word."""
    module = load_new_rows_module(config.family)
    if request.blend:
        return open_blend_rows(folder, module.find_train_rows(config.trainer)), "blend"
    if request.place is None:
        return module.find_test_rows(config.trainer), "test"
    rows = module.find_new_rows([config.trainer], request.place)
    return rows, rows.path.stem


def _record(folder: RunFolder, name: str, metrics: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Writes the metric record of an evaluation, and sends it to W&B as a run of this name in the run's group."""
    with hold_run(folder):
        config = with_wandb_environment(folder.read_config(), os.environ)
        record = MetricRecord(folder.evaluation_records / f"{name}.jsonl")
        record.log(0, metrics)
        record.close()
        with WandbSink(folder, config, say) as sink:
            sink.start()
            sink.finish(config.tracking.finish_timeout_s)


def _write(output: Path, name: str, content: bytes) -> None:
    write_whole(output / name, content)


def _open_models(folder: RunFolder, config: RunConfig) -> Callable[[str], Sequence[TrainedModel]]:
    """Gives the models of a checkpoint of all folds; without a name of the one that the ensemble has."""

    def read(checkpoint: str) -> Sequence[TrainedModel]:
        chosen: Any = checkpoint or config.ensemble.checkpoint
        own = replace(config, ensemble=replace(config.ensemble, checkpoint=chosen))
        first = folder.fold(0).checkpoint(chosen)
        if not first.exists():
            raise RunError(f"{first}: no such checkpoint: expected a run with one of this name in its folds")
        return read_models(folder, own, list_combined_folds(folder, config))

    return read


def _tabulate(config: RunConfig, whose: str, answered: Sequence[Any]) -> pa.Table:
    number = whose.rpartition("_")[2]
    fold, checkpoint = int(number) if number.isdecimal() else 0, config.ensemble.checkpoint
    tables = (config.kind.tabulate(one, fold=fold, checkpoint=checkpoint, member="main") for one in answered)
    return pa.concat_tables(tables)


def _find_parent(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if parent.exists())


def as_options(options: type[Any], given: Any) -> Any:
    """The family's options from what was typed."""
    return options(**{field.name: getattr(given, field.name) for field in fields(options)})


def expand(place: str | None) -> Path | None:
    """A path as it was typed."""
    return None if place is None else Path(os.path.expanduser(place)).absolute()
