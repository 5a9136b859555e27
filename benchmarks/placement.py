"""What does training the folds side by side save?

    python benchmarks/placement.py [--epochs 150] [--rounds 1] [field=value ...]

The three folds of the small recipe on made-up data, side by side and one after another
(`resources.max_folds_at_once=1`). A fold has the same share of the cores and the same threads on both sides (on two
cores: one thread), so both do the same work, and their out-of-fold predictions are compared bit for bit. The ratio is
one after another to side by side: of the whole job as the user waits for it, and of `seconds.train` of its summary, in
which Ray's workers start and the folds train. Three folds of one thread on two cores can at best have 2.0; what the
machine's cores can really do at once is measured, too, by processes that only train a small transformer, as many as
there are cores. Ends with 1 if bits differ. Wants a machine that does nothing else."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from support.processes import clean_environment

from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder

SIDES = {"side by side": (), "one after another": ("resources.max_folds_at_once=1",)}
COMPUTE = """
import time, torch
torch.set_num_threads(1)
layer, rows = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), torch.randn(64, 77, 64)
def work(steps):
    for _ in range(steps):
        layer(rows).sum().backward()
work(5)
began = time.perf_counter()
work(150)
print(time.perf_counter() - began)
"""
FIELDS = ("resources.gpus_per_fold=0", "run.dashboard=false", "tracking.wandb=disabled")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--epochs", type=int, default=150)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("words", nargs="*", help="fields of the runs")
    given = arguments.parse_args()
    words = [*FIELDS, f"training.epochs={given.epochs}", *given.words]
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as home:
        runs = []
        for number in range(given.rounds):
            for side, own in SIDES.items():
                runs.append(RunFolder(Path(home) / "ray_results" / f"{side.replace(' ', '_')}_{number}"))
                taken[side].append(train(runs[-1], Path(home), [*words, *own]))
                print(f"{side:18s} job {taken[side][-1][0]:6.1f} s, train {taken[side][-1][1]:6.1f} s", flush=True)
        differing = [run.root.name for run in runs[1:] if not have_same_predictions(run, runs[0])]
    print(f"processes that only compute gain {measure_ceiling():.2f} by running on {os.cpu_count()} cores at once")
    for name in differing:
        print(f"{name}: out-of-fold predictions are not those of {runs[0].root.name}")
    report(taken, is_same=not differing)
    return 1 if differing else 0


def measure_ceiling() -> float:
    """How many times more processes that do nothing but train get done when there is one on each core than when there
    is one."""
    num_cores = os.cpu_count() or 1

    def measure(count: int) -> float:
        jobs = [
            subprocess.Popen([sys.executable, "-c", COMPUTE], stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        return statistics.mean(float(job.communicate()[0]) for job in jobs)

    return num_cores * measure(1) / measure(num_cores)


def train(run: RunFolder, home: Path, words: list[str]) -> tuple[float, float]:
    """Seconds of the whole job, and of its training."""
    command = [sys.executable, "ray_jobs/kfold.py", f"run.name={run.root.name}", *words]
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=REPOSITORY, env=clean_environment(HOME=str(home)), text=True, capture_output=True
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    print(next(line for line in done.stdout.splitlines() if "fold(s) at once" in line))
    return seconds, read_json(run.summary)["seconds"]["train"]


def have_same_predictions(one: RunFolder, other: RunFolder) -> bool:
    """Whether the files of the out-of-fold predictions are the same, byte by byte."""
    return one.oof.read_bytes() == other.oof.read_bytes()


def report(taken: dict[str, list[tuple[float, float]]], *, is_same: bool) -> None:
    """The medians of the rounds, and their ratios."""
    medians = {side: [statistics.median(times) for times in zip(*rows, strict=True)] for side, rows in taken.items()}
    print(f"\n{'median of ' + str(len(taken['side by side'])):18s} {'job':>8s} {'train':>8s}")
    for side, (job, training) in medians.items():
        print(f"{side:18s} {job:6.1f} s {training:6.1f} s")
    job, training = (slow / fast for fast, slow in zip(*(medians[side] for side in SIDES), strict=True))
    bits = "the same bits" if is_same else "DIFFERENT BITS"
    print(
        f"one after another takes {job:.2f} times the job and {training:.2f} times the training of side by side; {bits}"
    )


if __name__ == "__main__":
    sys.exit(main())
