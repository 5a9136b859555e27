"""New rows of a family that predicts maps: how the models' maps become one, and what is written of each row."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.maps.combine import choose_classes, combine_maps, count_places, measure_disagreement, score_counts
from ensemble.maps.files import to_png
from ensemble.maps.overlays import draw_overlay, to_heat, to_mask_picture
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError
from ray_jobs.results.map_submission import choose_map_weights
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from trainers.interface import NewMap
from trainers.storage.whole_files import write_whole

SUMMARY, BAD_ROWS = "summary.csv", "summary_bad_rows.csv"
PICTURES = ("masks", "overlays", "disagreement")  # folders of the output


@dataclass(frozen=True)
class MapEnsemble:
    """How the maps of a run's models become one.

    Attributes:
        config: of the run.
        weights_M: of the models; None for a method without.
        names: (M,) of the models.
    """

    config: RunConfig
    weights_M: np.ndarray | None
    names: tuple[str, ...]

    def list_columns(self, target: str, *, shows_models: bool) -> tuple[str, ...]:
        """Names of what `write_rows` gives, but for the id."""
        models = tuple(f"model_{name}" for name in self.names) if shows_models else ()
        return (target, "disagreement", "dice", "iou", "mask", *models)

    def combine_rows(self, predicted: Iterable[NewMap], *, shows_models: bool) -> pa.Table:
        """Of each row id, share of foreground, mean disagreement, Dice and IoU where the truth is known, path of the mask, each model's
        share; then what was wrong, and mask, overlay and disagreement as PNG files."""
        rows = [self._combine_row(one) for one in predicted]
        shares = list(zip(*(row[-1] for row in rows), strict=True)) if shows_models else []
        texts, numbers = pa.string(), pa.float64()
        kinds = (texts, numbers, numbers, numbers, numbers, texts)
        columns = [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(kinds)]
        columns += [pa.array(model, numbers) for model in shares]
        names = [*map(str, range(len(columns))), "problem", *PICTURES]
        columns.append(pa.array([row[6] for row in rows], texts))
        columns += [pa.array([row[7][name] for row in rows], pa.binary()) for name in PICTURES]
        return pa.table(columns, names=names)

    def _combine_row(self, one: NewMap) -> tuple[Any, ...]:
        ensemble, num_classes = self.config.ensemble, max(2, one.probability_MCHW.shape[1])
        combined_CHW = combine_maps(one.probability_MCHW, ensemble.method, self.weights_M, ensemble.threshold)
        said_HW = choose_classes(combined_CHW, ensemble.threshold)
        disagreement_HW = measure_disagreement(one.probability_MCHW)
        pictures = {
            "masks": to_mask_picture(said_HW, num_classes),
            "overlays": draw_overlay(one.background_HW3, said_HW, one.target_HW),
            "disagreement": to_heat(disagreement_HW),
        }
        encoded = {name: to_png(values) for name, values in pictures.items()}
        scores = {} if one.target_HW is None else score_counts(count_places(said_HW, one.target_HW, num_classes))
        shares = [float((choose_classes(model, ensemble.threshold) != 0).mean()) for model in one.probability_MCHW]
        found = (float((said_HW != 0).mean()), float(disagreement_HW.mean()), scores.get("dice"), scores.get("iou"))
        return (one.row_id, *found, f"masks/{one.row_id}.png", one.problem or None, encoded, shares)


def write_pictures(block: pa.Table, output: Path) -> None:
    """Writes the pictures of `combine_rows` into the output's folders."""
    for name in PICTURES:
        for row_id, content in zip(block["0"].to_pylist(), block[name].to_pylist(), strict=True):
            write_whole(output / name / f"{row_id}.png", content)


@contextmanager
def appearing_output(output: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of the output, and of an earlier prediction there, once the block is left without
    an error."""
    staged = output.with_name(f".{output.name}.part")
    shutil.rmtree(staged, ignore_errors=True)  # what a killed job has left
    staged.mkdir(parents=True)
    try:
        yield staged
        for path in _list_own(output):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        output.mkdir(exist_ok=True)
        for path in sorted(staged.iterdir(), key=lambda path: path.name == SUMMARY):  # it says that all is there
            path.rename(output / path.name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _list_own(output: Path) -> list[Path]:
    """What a prediction has made there, the summary first."""
    known = (SUMMARY, BAD_ROWS, *PICTURES)
    return [output / name for name in known if (output / name).exists()]


def refuse_foreign(output: Path, inputs: Iterable[Path | None]) -> None:
    """Raises RunError where the output holds what no prediction has written, or what is to be read."""
    if output.is_file():
        raise RunError(f"--output {output} is a file: expected a folder, for masks, overlays and {SUMMARY}")
    inside = set(output.iterdir()) if output.is_dir() else set()
    if not inside:
        return
    foreign = sorted(path.name for path in inside - set(_list_own(output)))
    if foreign or not (output / SUMMARY).exists():
        held = ", ".join(foreign or sorted(path.name for path in inside))
        raise RunError(f"--output {output} holds {held:.200}, which no prediction has written; name another folder")
    for path in filter(None, inputs):
        if path.resolve().is_relative_to(output.resolve()):
            raise RunError(f"--output {output} holds {path}, which is to be read; name another folder")


def settle_map_run(folder: RunFolder, config: RunConfig) -> MapEnsemble:
    """The run's combination with the weights that its submission has.

    Raises:
        RunError: the run has no scores yet.
    """
    scores = read_json(folder.summary, default={}).get("scores")
    if not scores:
        raise RunError(f"{folder.root} has no scores yet: finish the run first; the command is in provenance.json")
    names = tuple(f"fold_{fold}" for fold in range(config.folds.count))
    return MapEnsemble(config, choose_map_weights(config, scores), names)
