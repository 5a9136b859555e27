"""What a cross-validation costs beyond its training: the same work in a plain loop, on Ray, by AutoGluon and by this
project.

    python benchmarks/fixed_cost.py [--repeats 3] [--autogluon PYTHON] [--processes]

3,000 made-up rows of 16 numbers, 3 folds, 10 epochs, a small network, one thread a fold; every side trains the same
folds with the same code and must come to the same out-of-fold error to the last digit. The exception is AutoGluon,
which has a network of its own (10 epochs, too) and runs in the Python that is named, where autogluon.tabular is
installed. From start to exit of each side's process: wall time, CPU time of all its processes and of those that live on
for a moment, peak of their memory (pages that are not shared) and of their number; medians. The fixed cost is the wall
time less the plain loop's. `--processes` lists where the CPU time went."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

NUM_ROWS, NUM_COLUMNS, NUM_FOLDS, NUM_EPOCHS, BATCH_SIZE = 3_000, 16, 3, 10, 64
LOOK_INTERVAL_S = 0.05
STAYS_AT_MOST_S = 20.0
_SET_CHILD_SUBREAPER = 36  # prctl
_TICKS, _PAGE_MIB = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE") / 2**20
COLUMNS = [f"x{number}" for number in range(NUM_COLUMNS)]
DATA_WORDS = ["data.train_pictures=", "data.test_pictures=", "data.text_columns=[]", "data.date_column=none"]
WORDS = [
    *DATA_WORDS, f"data.numeric_columns=[{','.join(COLUMNS)}]", f"training.epochs={NUM_EPOCHS}",
    f"training.batch_size={BATCH_SIZE}",
]  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--only", nargs="+", help=f"which sides beside the plain loop: {', '.join(SIDES)}")
    arguments.add_argument("--autogluon", metavar="PYTHON", help="where autogluon.tabular is installed")
    arguments.add_argument("--processes", action="store_true", help="list the CPU time by process")
    arguments.add_argument("--side", help=argparse.SUPPRESS)  # what the measured processes are started with
    arguments.add_argument("--root", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.side:
        print(json.dumps(SIDES[given.side].run(Path(given.root))))
        return
    names = [name for name in SIDES if given.only is None or name in given.only or name == PLAIN]
    if not given.autogluon:
        names = [name for name in names if name != AUTOGLUON]
    compare(names, given.repeats, given.autogluon, given.processes)


# What is measured.


class MemoryContext:
    """The least that satisfies `trainers.interface.FoldContext`: one rank, everything in memory."""

    rank, world_size, device, num_threads = 0, 1, "cpu", 1

    def __init__(self, root: Path, report: Callable[[dict[str, float]], None] | None = None) -> None:
        self.inputs, self.cache, self.cache_uri = root / "inputs", root / "cache", None
        self.report, self.checkpoints, self.predictions = report, {}, {}

    def log_step(self, global_step: int, metrics: dict[str, Any]) -> None: ...

    def log(self, global_step: int, metrics: dict[str, float]) -> None: ...

    def report_progress(self, progress: Any) -> None: ...

    def report_epoch(self, epoch: int, num_epochs: int, global_step: int, metrics: dict[str, float]) -> None:
        if self.report is not None:
            self.report(dict(metrics))

    def save_checkpoint(self, name: str, tensors: dict[str, Any], description: dict[str, Any], **more: Any) -> None:
        self.checkpoints[name] = {key: tensor.detach().clone() for key, tensor in tensors.items()}

    def load_checkpoint(self, name: str) -> dict[str, Any]:
        return self.checkpoints[name]

    def load_resume_point(self) -> None: ...

    def is_resume_point_due(self, global_step: int) -> bool:
        return False

    def save_resume_point(self, point: Any, global_step: int) -> None: ...

    def is_time_up(self, global_step: int, next_s: float) -> bool:
        return False

    def share_tensors(self, name: str, tensors: dict[str, Any]) -> dict[str, str]:
        return {}

    def share_file(self, name: str, path: Path, sha256: str) -> dict[str, str]:
        return {}

    def retry_while_unavailable(self, what: str, do: Callable[[], Any]) -> Any:
        return do()

    def preparing(self) -> nullcontext[None]:
        return nullcontext()

    def report_preparation(self, what: str, done: int, total: int) -> None: ...
    def touch(self) -> None: ...

    def save_predictions(self, checkpoint: str, rows: str, ids: Any, predictions: Any) -> None:
        (self.predictions[checkpoint, rows],) = predictions

    def log_picture(self, global_step: int, name: str, content: bytes) -> None: ...

    def note_bad_row(self, table: str, row_id: str, problem: str, done: str) -> None: ...


def plan_work(root: Path) -> tuple[Any, list[Any]]:
    """Config and splits of the folds, from the same functions as the project's own."""
    from ray_jobs.cli.command_line import parse_kfold
    from ray_jobs.planning.folds import plan_folds
    from trainers.interface import load_inventory_module

    config = parse_kfold([*WORDS, f"data.root={root}"]).config
    module = load_inventory_module(config.family)
    trainer, inventory = module.take_inventory(config.trainer, root)
    module.write_inputs(trainer, inventory, root / "inputs")
    plan = plan_folds(config.folds, inventory)
    return trainer, [plan.split(fold) for fold in range(NUM_FOLDS)]


def train_one(trainer: Any, split: Any, report: Callable[[dict[str, float]], None] | None = None) -> tuple[Any, Any]:
    """A fold's target and out-of-fold predictions."""
    from trainers.clip_regression.train import train_fold

    context = MemoryContext(Path(trainer.data.root), report)
    train_fold(trainer, split, context)
    found = context.predictions["best", "validation"]
    return found.target, found.prediction


def score_all(found: list[tuple[Any, Any]]) -> float:
    """Out-of-fold error of all folds together."""
    import numpy as np

    target, prediction = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return float(np.mean((np.log1p(prediction) - np.log1p(target)) ** 2))


def run_plain(root: Path) -> float:
    trainer, splits = plan_work(root)
    return score_all([train_one(trainer, split) for split in splits])


def run_tasks(root: Path) -> float:
    import ray

    trainer, splits = plan_work(root)
    ray.init(log_to_driver=False)
    train = ray.remote(num_cpus=0.6)(train_one)
    found = ray.get([train.remote(trainer, split) for split in splits])
    ray.shutdown()
    return score_all(found)


def run_trainers(root: Path) -> float:
    """A TorchTrainer a fold, each driven from a thread, as Ray's documentation would have it and with its defaults."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer, splits = plan_work(root)
    ray.init(log_to_driver=False)
    found: dict[int, tuple[Any, Any]] = {}

    def fit(split: Any) -> None:
        def train_worker() -> tuple[Any, Any]:
            return train_one(trainer, split, ray.train.report)

        scaling = ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.6})
        place = RunConfig(name=f"fold{split.fold}", storage_path=str(root / "train"))
        found[split.fold] = TorchTrainer(train_worker, scaling_config=scaling, run_config=place).fit().return_value

    threads = [threading.Thread(target=fit, args=(split,)) for split in splits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ray.shutdown()
    return score_all([found[split.fold] for split in splits])


def run_autogluon(root: Path) -> float:
    """In another Python: nothing of this project can be imported there."""
    import pandas as pd
    from autogluon.tabular import TabularPredictor

    table = pd.read_csv(root / "train_val.csv").drop(columns="id")
    network = {
        "num_epochs": NUM_EPOCHS,
        "epochs_wo_improve": NUM_EPOCHS,
        "batch_size": BATCH_SIZE,
        "ag_args_fit": {"num_cpus": 1},
    }
    predictor = TabularPredictor("views", path=str(root / "autogluon"), problem_type="regression", verbosity=1)
    predictor.fit(
        table, hyperparameters={"NN_TORCH": network}, num_bag_folds=NUM_FOLDS, num_bag_sets=1,
        fit_weighted_ensemble=False, num_cpus=NUM_FOLDS,
        ag_args_ensemble={"fold_fitting_strategy": "parallel_local"},
    )  # fmt: skip
    assert predictor.info()["model_info"], "nothing was trained"
    return float(-predictor.leaderboard()["score_val"][0])


@dataclass(frozen=True)
class Side:
    """A way to do the work: in a process of this file, or as the project's job with these further words."""

    run: Callable[[Path], float] | None = None
    words: tuple[str, ...] = ()


PLAIN, AUTOGLUON, OURS = "plain", "autogluon", "kfold"
SIDES = {
    PLAIN: Side(run_plain),
    "tasks": Side(run_tasks),
    "trainers": Side(run_trainers),
    AUTOGLUON: Side(run_autogluon),
    OURS: Side(),
    "kfold-bare": Side(words=("run.dashboard=false", "tracking.wandb=disabled")),
}
NAMES = {
    PLAIN: "plain loop",
    "tasks": "plain Ray tasks",
    "trainers": "a TorchTrainer a fold, from threads, Ray's defaults",
    AUTOGLUON: "AutoGluon, parallel folds",
    OURS: "this project",
    "kfold-bare": "this project without dashboard and W&B",
}


# How it is measured.


@dataclass
class Family:
    """All descendants of this process; orphans come to it, for it is their subreaper.

    Attributes:
        cpu_s: by process, as last seen; a process is its id and when it was started.
        titles: what each called itself.
        peak_mib, peak_number: of all that lived at once.
    """

    cpu_s: dict[tuple[str, str], float] = field(default_factory=dict)
    titles: dict[tuple[str, str], str] = field(default_factory=dict)
    peak_mib: float = 0.0
    peak_number: int = 0
    strangers: set[str] = field(default_factory=set)

    def look(self, job: int) -> int:
        """Reads /proc once; returns how many live. Buries orphans, but not the job."""
        own, pids, mib, alive = str(os.getpid()), {pid for pid, _ in self.cpu_s}, 0.0, 0
        for pid in sorted(filter(str.isdigit, set(os.listdir("/proc")) - self.strangers), key=int):
            with suppress(OSError):
                values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if pid not in pids and values[1] != own and values[1] not in pids:
                    self.strangers.add(pid)
                    continue
                pids.add(pid)
                process = (pid, values[19])
                self.cpu_s[process] = (int(values[11]) + int(values[12])) / _TICKS
                if values[0] == "Z":
                    if values[1] == own and int(pid) != job:
                        os.waitpid(int(pid), os.WNOHANG)
                    continue
                alive += 1
                self.titles[process] = self._choose_title(process, Path(f"/proc/{pid}/cmdline").read_bytes())
                resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
                mib += (int(resident) - int(shared)) * _PAGE_MIB
        self.peak_mib, self.peak_number = max(self.peak_mib, mib), max(self.peak_number, alive)
        return alive

    def _choose_title(self, process: tuple[str, str], title: bytes) -> str:
        known, new = self.titles.get(process, ""), name_process(title)
        return known if known and new in ("", "ray::IDLE") else new

    def by_title(self) -> dict[str, tuple[int, float]]:
        """{title: number of processes, their CPU seconds}, the most expensive first."""
        seconds, numbers = Counter(), Counter()
        for process, cpu_s in self.cpu_s.items():
            title = self.titles.get(process, "")
            seconds[title] += cpu_s
            numbers[title] += 1
        return {title: (numbers[title], total) for title, total in seconds.most_common()}


def name_process(title: bytes) -> str:
    """What a process is, from its command line."""
    words = title.replace(b"\0", b" ").decode(errors="replace").split()
    if not words or words[0].startswith(("ray::", "ray-")):
        return words[0].partition(".")[0].partition("(")[0] if words else ""
    if Path(words[0]).name.startswith("python"):
        if "-c" in words:
            return "python -c " + " ".join(words[words.index("-c") + 1 :])[:40]
        return next(("/".join(Path(word).parts[-2:]) for word in words[1:] if not word.startswith("-")), "python")
    return Path(words[0]).name


@dataclass(frozen=True)
class Cost:
    """What a side took, once."""

    wall_s: float
    cpu_s: float
    mib: float
    num_processes: int
    score: float
    by_title: dict[str, tuple[int, float]]


def measure(name: str, python: str) -> Cost:
    """Runs a side in an empty home of its own."""
    with tempfile.TemporaryDirectory(prefix="fixed_", dir="/tmp") as home:  # short, for Ray's sockets
        root = Path(home)
        make_table(root / "train_val.csv")
        script = [__file__, "--side", name, "--root", home]
        if SIDES[name].run is None:
            script = [
                "ray_jobs/kfold.py",
                *WORDS,
                f"data.root={home}",
                f"run.storage={home}/runs",
                "run.name=fixed",
                *SIDES[name].words,
            ]
        family, log = Family(), root / "output.txt"
        with log.open("wb") as output:
            began = time.monotonic()
            job = subprocess.Popen(
                [python, *script], cwd=REPOSITORY, env=clean_environment(home), stdout=output, stderr=output
            )
            wall_s = watch(job, family, began)
        if job.returncode:
            raise SystemExit(f"{NAMES[name]} ended with {job.returncode}:\n{log.read_text()[-3000:]}")
        score = float(log.read_text().split()[-1]) if SIDES[name].run else read_score(root / "runs" / "fixed")
    return Cost(wall_s, sum(family.cpu_s.values()), family.peak_mib, family.peak_number, score, family.by_title())


def watch(job: subprocess.Popen[bytes], family: Family, began: float) -> float:
    """Follows a job and what it leaves behind to the end; returns the wall time of the job alone."""
    ended: list[float] = []
    waiter = threading.Thread(target=lambda: (job.wait(), ended.append(time.monotonic())))
    waiter.start()
    while family.look(job.pid) or not ended:
        if ended and time.monotonic() - ended[0] > STAYS_AT_MOST_S:
            raise SystemExit(f"these do not end: {sorted(set(family.titles.values()))}")
        time.sleep(LOOK_INTERVAL_S)
    waiter.join()
    return ended[0] - began


def clean_environment(home: str) -> dict[str, str]:
    """A user's environment who has set nothing, with one thread a fold."""
    dropped = ("RAY_", "WANDB_", "PYTHON", "NETRC")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    # Ray's workers give way to every other process unless told not to: whatever else the machine does would hit them
    # alone.
    return kept | {"HOME": home, "RAY_TMPDIR": home, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}


def make_table(path: Path) -> None:
    """Rows of ready features; the target depends on some of them."""
    import numpy as np

    rng = np.random.default_rng(0)
    values = rng.normal(size=(NUM_ROWS, NUM_COLUMNS))
    target = np.expm1(
        3 + 0.8 * values[:, 0] - 0.6 * values[:, 1] * values[:, 2] + 0.3 * rng.normal(size=NUM_ROWS)
    ).clip(0)
    lines = [",".join(["id", *COLUMNS, "views"])]
    lines += [
        f"r{row},{','.join(f'{value:.6f}' for value in values[row])},{target[row]:.6f}" for row in range(NUM_ROWS)
    ]
    path.write_text("\n".join(lines) + "\n")


def read_score(run: Path) -> float:
    """Out-of-fold error of a run's best checkpoints."""
    return json.loads((run / "summary.json").read_text())["scores"]["out_of_fold"]["best"]["msle"]


# What is shown.


def compare(names: list[str], repeats: int, autogluon: str | None, shows_processes: bool) -> None:
    """Measures the sides in turn and prints a table."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for _ in range(repeats):  # in turn: whatever else the machine does hits all of them
        for name in names:
            costs[name].append(measure(name, autogluon if name == AUTOGLUON else sys.executable))
    same = {round(cost.score, 9) for name in names if name != AUTOGLUON for cost in costs[name]}
    if len(same) > 1:
        raise SystemExit(f"not the same work: out-of-fold errors {sorted(same)}")
    show(costs, shows_processes)


def show(costs: dict[str, list[Cost]], shows_processes: bool) -> None:
    """The medians; the last line is the project's fixed cost."""
    from rich.console import Console
    from rich.table import Table

    console, typical = Console(width=160), {name: find_typical(found) for name, found in costs.items()}
    table = Table(
        title=f"{NUM_ROWS} rows, {NUM_EPOCHS} epochs, {NUM_FOLDS} folds on {os.cpu_count()} cores", title_justify="left"
    )
    for column in ("", "wall s", "from, to", "CPU s", "MiB", "processes", "fixed s", "fixed CPU s"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    plain = typical[PLAIN]
    for name, cost in typical.items():
        walls = [one.wall_s for one in costs[name]]
        fixed = (f"{cost.wall_s - plain.wall_s:.1f}", f"{cost.cpu_s - plain.cpu_s:.1f}") if name != PLAIN else ("", "")
        table.add_row(
            NAMES[name], f"{cost.wall_s:.1f}", f"{min(walls):.1f}, {max(walls):.1f}", f"{cost.cpu_s:.1f}",
            f"{cost.mib:,.0f}",
            str(cost.num_processes), *fixed,
        )  # fmt: skip
    console.print(table)
    if shows_processes:
        for name, cost in typical.items():
            console.print(NAMES[name])
            for title, (number, cpu_s) in cost.by_title.items():
                console.print(f"  {cpu_s:6.2f} CPU s  {number:2d} x {title}", markup=False)
    console.print(describe(typical), markup=False)


def find_typical(costs: list[Cost]) -> Cost:
    """The median of each figure; processes as the run with the median CPU time had them."""
    middle = sorted(costs, key=lambda cost: cost.cpu_s)[len(costs) // 2]
    median = {name: statistics.median(getattr(cost, name) for cost in costs) for name in ("wall_s", "cpu_s", "mib")}
    return Cost(**median, num_processes=middle.num_processes, score=middle.score, by_title=middle.by_title)


def describe(typical: dict[str, Cost]) -> str:
    """The project's fixed cost in one line, with that of the others."""
    plain = typical[PLAIN].wall_s
    others = [
        f"{NAMES[name]} {cost.wall_s - plain:.1f} s" for name, cost in typical.items() if name not in (PLAIN, OURS)
    ]
    own = f"{typical[OURS].wall_s - plain:.1f}" if OURS in typical else "-"
    return f"fixed cost {own} s ({'; '.join([f'plain loop {plain:.1f} s', *others])})"


if __name__ == "__main__":
    main()
