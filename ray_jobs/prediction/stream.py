"""The way of new rows through Ray Data: a table is read in blocks by one task, and each block predicted as a whole by
one of several actors that hold all models of the run. No process holds more of the table than a few blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ensemble.run import Combiner
from ray_jobs.cluster.placement import Placement
from ray_jobs.config.run import RunConfig
from ray_jobs.prediction.families import load_predictor
from ray_jobs.prediction.models import read_models
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_uri
from ray_jobs.runs.remote.run_mirror import bring_run

_MOST_DEATHS = 3  # of an actor, and tries of a block: what kills it each time is not tried for ever


@dataclass(frozen=True)
class PredictionJob:
    """A request that has passed every check.

    Attributes:
        root: the run's folder.
        config: of the run.
        folds: whose models are combined.
        combiner: of its models.
        family: whose models predict; empty: several.
        rows: the family's `NewRows`, or what stands for those of several.
        output: the file.
        columns: its header.
        is_soup: whether the mean of the models' weights predicts.
    """

    root: Path
    config: RunConfig
    folds: tuple[int, ...]
    combiner: Combiner
    family: str
    rows: Any
    num_rows: int
    output: Path
    columns: tuple[str, ...]
    shows_models: bool
    is_soup: bool = False


def stream_predictions(
    work: PredictionJob, placement: Placement, num_workers: int, block_rows: int
) -> Iterator[pa.Table]:
    """The predicted blocks, in the table's order: see `ensemble.run.Combiner.predict`."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # bytes: Ray Data would put rows together until they are 128 MB
    context.enable_progress_bars = context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = work.config.run.stall_timeout_s or -1
    table = ray.data.from_items([{"table": str(work.rows.path)}], override_num_blocks=1)
    blocks = table.map_batches(
        _read_blocks,  # type: ignore[arg-type] # Ray's type of it leaves no room for `fn_args`
        fn_args=(work.rows, block_rows),
        batch_size=None,
        num_cpus=0,
    )
    predicted = blocks.map_batches(
        _Worker,
        fn_constructor_args=(
            work,
            find_uri(RunFolder(work.root)),
            placement.gpus_per_worker > 0,
            placement.threads_per_worker,
        ),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=placement.cpus_per_worker,
        num_gpus=placement.gpus_per_worker or None,
        compute=ray.data.ActorPoolStrategy(size=num_workers),
        ray_remote_args_fn=partial(dict, max_restarts=_MOST_DEATHS, max_task_retries=_MOST_DEATHS),
    )
    for packed in predicted.iter_batches(batch_size=1, batch_format="pyarrow"):
        yield _unpack(packed)


def _read_blocks(_: Any, rows: Any, block_rows: int) -> Iterator[pa.Table]:
    for block in rows.read(block_rows):
        yield _pack(block)


class _Worker:
    """An actor that holds all models."""

    def __init__(self, work: PredictionJob, uri: str | None, uses_gpu: bool, num_threads: int) -> None:
        config = work.config
        bring_run(work.root, uri)
        models = read_models(RunFolder(work.root), config, work.folds)
        device = "cuda:0" if uses_gpu else "cpu"
        self.predictor = load_predictor(work.family, is_soup=work.is_soup)(models, work.rows, device, num_threads)
        self.work = work

    def __call__(self, packed: pa.Table) -> pa.Table:
        work = self.work
        return _pack(work.combiner.predict(self.predictor, _unpack(packed), shows_models=work.shows_models))


def _pack(block: pa.Table) -> pa.Table:
    """A block as one row: Ray Data divides and joins rows as it likes, and what is predicted together decides a row's
    last bits."""
    rows = block.to_struct_array().combine_chunks()
    return pa.table({"rows": pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)})


def _unpack(packed: pa.Table) -> pa.Table:
    return pa.Table.from_struct_array(packed["rows"].combine_chunks().flatten())
