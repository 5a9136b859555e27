"""A process that fine-tunes is killed by SIGKILL in each stage, and another one goes on from what lies on the disk."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.local_context import LocalFoldContext
from support.processes import REPOSITORY
from support.small_finetuning import train_small

WORDS = "grpo.steps_per_generation=2 grpo.iterations=2"


class OnDisk(LocalFoldContext):
    """Keeps its resume point in a file that appears whole, and says each step that it has reached."""

    def is_resume_point_due(self, global_step):
        return True

    def save_resume_point(self, point, global_step):
        state = torch.get_rng_state()
        (self.root / "point.tmp").write_bytes(pickle.dumps((point, state)))
        os.replace(self.root / "point.tmp", self.root / "point")
        print(global_step, flush=True)


def train_on_disk(root: Path) -> None:
    saved = root / "point"
    torch.manual_seed(int.from_bytes(os.urandom(4), "little"))  # what a new process has does not matter
    train_small(root, WORDS, build=OnDisk, resume_from=pickle.loads(saved.read_bytes()) if saved.exists() else None)


def run(root: Path, kill_at: int | None) -> int:
    """The exit status of a process that trains, killed as soon as it says a step; what it has begun meanwhile is lost."""
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    script = f"from {__name__.rpartition('.')[2]} import train_on_disk; from pathlib import Path; train_on_disk(Path({str(root)!r}))"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([path, str(Path(__file__).parent)]),
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        for line in process.stdout:
            if line.strip() == str(kill_at):
                process.send_signal(signal.SIGKILL)
    return process.returncode


@pytest.mark.slow
def test_killed_in_each_stage_a_fold_ends_with_the_same_bits(tmp_path):
    whole = train_small(tmp_path / "whole", WORDS)
    killed = tmp_path / "killed"
    # Of the steps 1 to 3 are supervised; 4 to 7 learn from one generation of GRPO.
    assert run(killed, 2) == run(killed, 6) == -signal.SIGKILL
    assert run(killed, None) == 0
    for name in ("best", "final", "sft"):
        assert (killed / name).read_bytes() == (whole.root / name).read_bytes(), name
