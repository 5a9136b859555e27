"""The models of a finished run, as a later job uses them: whether they are whole, reading them, and how their predictions become one.

Shape suffixes: F fold models of all members, M models that are combined (members, or the fold models of the only one), N rows.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.members.combinations import Settled
from ensemble.numbers.diversity import spread
from ensemble.predictions import PredictionError
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError, RunFolderError
from ray_jobs.results.checks import check_finished
from ray_jobs.results.columns import combine_folds, combines_folds, find_columns
from ray_jobs.results.intervals import IntervalBasis, find_basis
from ray_jobs.results.stage import score_folds
from ray_jobs.results.submission import settle_ensemble
from ray_jobs.runs.checkpoints import open_checkpoint, read_description
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from trainers.interface import TrainedModel
from trainers.storage.whole_files import sum_up_file

if TYPE_CHECKING:
    from torch import Tensor

_SHARED_NAME = re.compile(r"[a-z_]+-[0-9a-f]{12}\.safetensors")


@dataclass(frozen=True)
class RunEnsemble:
    """How the predictions of a run's models become one.

    Attributes:
        config: of the run.
        settled: the combination that its submission has.
        names: (M,) of what is combined: `fold_0`, or the members.
        basis: of intervals, if the run has them.
    """

    config: RunConfig
    settled: Settled
    names: tuple[str, ...]
    basis: IntervalBasis | None = None

    def list_columns(self, target: str, *, shows_models: bool) -> tuple[str, ...]:
        """Names of what `combine` gives."""
        ends = (f"{target}_low", f"{target}_high") if self.basis else ()
        models = (*(f"model_{name}" for name in self.names), "std") if shows_models else ()
        return (target, *ends, *models)

    def combine(self, ids_N: np.ndarray, predictions_FN: np.ndarray, *, shows_models: bool) -> list[np.ndarray]:
        """The combined prediction, (N,), in the target's unit, the ends of its interval, what is combined and its standard
        deviation: as `list_columns` says.

        Raises:
            PredictionError: a model predicts no finite number.
        """
        bad = np.argwhere(~np.isfinite(predictions_FN))
        if len(bad):
            model, row = divmod(int(bad[0][0]), self.config.folds.count), bad[0][1]
            raise PredictionError(
                f"member {self.config.combined_members[model[0]]}, fold {model[1]}: the prediction of id {str(ids_N[row])!r} is "
                "not finite; leave the member out (ensemble.members), or use the other checkpoint (ensemble.checkpoint)"
            )
        num_folds, num_members = self.config.folds.count, len(self.config.combined_members)
        models_MN = combine_folds(self.config, predictions_FN, [num_folds] * num_members)
        columns = [self.settled.predict(models_MN)]
        if self.basis:
            columns += self.basis.predict(predictions_FN.reshape(num_members, num_folds, -1).swapaxes(0, 1))
        return [*columns, *models_MN, spread(models_MN)] if shows_models else columns


def settle_run(folder: RunFolder, config: RunConfig) -> RunEnsemble:
    """The run's combination with the weights that its submission has.

    Args:
        folder: the run; what is combined passes `refuse_unusable`.
        config: its config.
    """
    columns, names = find_columns(folder, config), config.combined_members
    folds = list(range(config.folds.count))
    scores = {name: score_folds(folder.of_member(name), config, folds)[0] for name in names}
    combined = [f"fold_{fold}" for fold in folds] if combines_folds(config) else names
    settled = settle_ensemble(config, columns, scores)
    basis = None if config.ensemble.interval is None else find_basis(folder, config, settled)
    return RunEnsemble(config, settled, tuple(combined), basis)


def refuse_unusable(folder: RunFolder, config: RunConfig) -> None:
    """Refuses a run whose models cannot predict.

    Raises:
        IncompleteRunError: a fold is not finished.
        RunFolderError: a file is damaged.
        RunError: a member is only known by its predictions.
    """
    if config.ensemble.external is not None:
        raise RunError(
            f"ensemble.external={config.ensemble.external}: members that were made elsewhere cannot predict new rows; "
            "ensemble.external=none combines the run's own"
        )
    members = [folder.of_member(name) for name in config.combined_members]
    check_finished(folder, config, config.combined_members)
    command, name = read_json(folder.provenance)["command"], config.ensemble.checkpoint
    shared: set[tuple[Path, str]] = set()
    for own in members:
        for fold in range(config.folds.count):
            if damaged := own.fold(fold).find_damage(f"checkpoints/{name}/"):
                what = f"trains {own.describe_fold(fold)} again, with the same bits"
                raise RunFolderError(f"{damaged[0]} is damaged or missing: `{command}` {what}")
            if found := _find_shared(own, read_description(own.fold(fold).checkpoint(name))):
                shared.add(found)
    for path, checksum in shared:
        if not path.is_file() or sum_up_file(path) != checksum:
            raise RunFolderError(f"{path} is damaged or missing: `{command}` makes it again, with the same bits")


def read_models(folder: RunFolder, config: RunConfig) -> list[TrainedModel]:
    """All fold models of the members that are combined, those of a member one after the other.

    Raises:
        RunFolderError: a file is missing or its checksum does not match.
    """
    from safetensors.torch import load

    shared: dict[str, dict[str, Tensor]] = {"": {}}
    models = []
    for name in config.combined_members:
        own = folder.of_member(name)
        for fold in range(config.folds.count):
            checkpoint = open_checkpoint(own.fold(fold).checkpoint(config.ensemble.checkpoint))
            found = _find_shared(own, checkpoint.description)
            if found and found[1] not in shared:
                shared[found[1]] = load(_read_shared(*found))
            tensors = {name: one for part in checkpoint.read_tensors() for name, one in load(part).items()}
            beside = (shared[found[1] if found else ""], checkpoint.read_files())
            models.append(TrainedModel(checkpoint.description, tensors, *beside))
    return models


def _find_shared(member: RunFolder, description: dict[str, Any]) -> tuple[Path, str] | None:
    """Where the tensors are that a checkpoint shares with others, and their checksum; None: nowhere. Another file than one in
    the member's folder is never read, whatever it names."""
    place = description.get("shared_tensors")
    if not place:
        return None
    if not _SHARED_NAME.fullmatch(str(place.get("path"))):
        raise RunFolderError(
            f"a checkpoint of {member.root} shares tensors at {place!r:.200}: expected <name>-<checksum>.safetensors"
        )
    return member.root / place["path"], str(place.get("sha256"))


def _read_shared(path: Path, checksum: str) -> bytes:
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != checksum:
        raise RunFolderError(f"{path} is missing or damaged: its checksum is not the one in checkpoint.json")
    return content
