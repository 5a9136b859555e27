"""A `trainers.interface.FoldContext` without Ray: one rank, a folder, everything kept in lists."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save

from trainers.interface import ResumePoint
from trainers.predictions import (
    ClassPredictions,
    DenoisingLosses,
    MadeSamples,
    Predictions,
    TokenLosses,
)


class KilledError(Exception):
    """The training was stopped where the test wanted it."""


class LocalFoldContext:
    """Keeps what a trainer records; checkpoints are safetensors files below `root`."""

    rank, world_size, device, num_threads = 0, 1, "cpu", 1
    cache_uri = None

    def __init__(self, root: Path) -> None:
        self.root, self.inputs, self.cache = root, root / "inputs", root.parent / "cache"
        self.prepared, self.touched, self.progress = [], 0, None
        self.evaluations, self.stages, self.pictures = [], [], []
        self.time_is_up_at, self.ended = None, []
        self.steps, self.rows, self.epochs, self.bad_rows = [], [], [], []
        self.resume_from, self.stop_at, self.stopped_with = None, None, None
        self.descriptions, self.predictions, self.shared = {}, {}, {}

    def log_step(self, global_step, metrics):
        self.steps.append((global_step, {name: float(value) for name, value in metrics.items()}))

    def log(self, global_step, metrics):
        self.rows.append((global_step, dict(metrics)))

    def log_picture(self, global_step, name, content):
        self.pictures.append((global_step, name, content))

    def report_epoch(self, epoch, num_epochs, global_step, metrics):
        self.epochs.append(dict(metrics))

    def touch(self):
        self.touched += 1

    def report_evaluation(self, global_step, metrics):
        self.evaluations.append((global_step, dict(metrics)))

    def begin_stage(self, name):
        self.stages.append(name)

    def report_progress(self, progress):
        self.progress = progress

    def save_checkpoint(self, name, tensors, description, *, shard=None, files=None):
        tensors = {**tensors, **(shard or {})}
        # Each rank of a test writes the same file: whoever reads it finds a whole one.
        part = self.root / f"{name}.rank_{self.rank}"
        part.write_bytes(save({k: v.detach().contiguous() for k, v in tensors.items()}))
        part.replace(self.root / name)
        self.descriptions[name] = description
        if files is not None:
            shutil.copytree(files, self.root / f"files of {name}", dirs_exist_ok=True)

    def find_files(self, name):
        return self.root / f"files of {name}"

    def load_checkpoint(self, name):
        return load((self.root / name).read_bytes())

    def load_resume_point(self):
        if self.resume_from is None:
            return None
        point, random_state = self.resume_from
        torch.set_rng_state(random_state)
        return point

    def is_resume_point_due(self, global_step):
        return global_step == self.stop_at

    def save_resume_point(self, point, global_step):
        """Keeps the point; ends the training like a kill when it is the one to stop at."""
        if global_step == self.stop_at:
            tensors, own, shard = (
                part and {name: tensor.clone() for name, tensor in part.items()}
                for part in (point.tensors, point.own, point.shard)
            )
            facts = json.loads(json.dumps(point.facts))
            self.stopped_with = ResumePoint(tensors, own or {}, facts, shard), torch.get_rng_state()
            raise KilledError

    def is_time_up(self, global_step, next_s):
        return self.time_is_up_at is not None and global_step >= self.time_is_up_at

    def report_early_end(self, global_step, reason):
        self.ended.append((global_step, reason))

    def share_tensors(self, name, tensors):
        self.shared[name] = {k: v.detach().clone() for k, v in tensors.items()}
        return {"path": name, "sha256": "local"}

    def share_file(self, name, path, sha256):
        self.shared[name] = load(path.read_bytes())
        return {"path": name, "sha256": sha256}

    def retry_while_unavailable(self, what, do):
        return do()

    def preparing(self):
        return nullcontext()

    def report_preparation(self, what, done, total):
        self.prepared.append((what, done, total))

    def save_predictions(self, checkpoint, rows, ids, predictions):
        """Keeps maps in a list, and what comes in blocks as one."""
        blocks = (Predictions, ClassPredictions, DenoisingLosses, MadeSamples, TokenLosses)
        found = list(predictions)
        own = [row_id for one in found for row_id in (one.ids if isinstance(one, blocks) else [one.row_id])]
        assert own == list(ids[self.rank :: self.world_size])
        self.predictions[checkpoint, rows] = join_blocks(found) if isinstance(found[0], blocks) else found

    def note_bad_row(self, table, row_id, problem, done):
        self.bad_rows.append((table, row_id, problem, done))


def join_blocks(blocks):
    """Blocks of predictions as one."""
    if len(blocks) == 1:
        return blocks[0]
    first, arrays = vars(blocks[0]), {}
    for name, value in first.items():
        parts = [vars(block)[name] for block in blocks]
        arrays[name] = np.concatenate(parts) if isinstance(value, np.ndarray) else value
    return type(blocks[0])(**arrays)
