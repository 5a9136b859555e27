"""Loading open_clip has no side effects of W&B's client."""

from __future__ import annotations

import os
import subprocess
import sys

from support.processes import REPOSITORY

# As Ray ends a worker: nothing is tidied up.
WORKER = """
import importlib.util, os, sys
import trainers.clip_regression.train, trainers.clip_regression.inputs.picture_reader, trainers.clip_regression.predict
from trainers.clip_regression.network import encoders
assert "timm" in sys.modules
print("wandb" in sys.modules, importlib.util.find_spec("wandb") is not None, flush=True)
os._exit(0)
"""


def test_a_worker_that_is_ended_leaves_no_folders_of_wandb(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        cwd=REPOSITORY,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "False True\n", done.stderr
    assert [path.name for path in tmp_path.iterdir() if "wandb" in path.name] == []
