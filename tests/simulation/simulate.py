"""Runs seeds: `make simulate SEEDS="0 1000"`; or one, and shows its schedule: `make simulate SEEDS=17`.
Numbers after the first two are further seeds.

`--seconds=15` ends after so many seconds of CPU, `--until-failed` after the first seed that fails; `--wandb` takes only
seeds whose run goes to W&B. PYTHONHASHSEED has to be 0: sets of names have another order otherwise, and a seed another
history."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from simulation.checks import Checks, Reference
from simulation.faults import Faults
from simulation.simulated import NUM_FOLDS, STORE, TEMPORARY, Setting, Simulation
from simulation.wandb import FAULTS
from simulation.world import Process, ViolationError

_MOST_COMMANDS = 30
_IMPATIENT_COMMANDS = 20  # that follow one another after seconds
_PATIENCE_S = 4000.0  # after the last fault
_UPLOAD_FAILS_S = 30.0  # W&B, at the end of a run
_LASTING_S = 60.0  # faults of disks and buckets at most


@dataclass
class Outcome:
    """What a seed has come to."""

    seed: int
    steps: int = 0
    seconds: float = 0.0
    checks: int = 0
    faults: list[str] = field(default_factory=list)
    failure: str = ""
    lines: list[str] = field(default_factory=list)


def choose_setting(seed: int) -> Setting:
    """What a seed's run is like."""
    luck = Random(f"setting {seed}")
    return Setting(
        every_steps=luck.choice((None, 1, 2, 3, 4)),
        min_interval_s=luck.choice((0.0, 0.0, 2.0)),
        patience_s=luck.choice((30.0, 30.0, 5.0)),
        stall_timeout_s=luck.choice((30.0, 60.0, None)),
        machines=luck.choice((("a",), ("a", "b"))),
        at_once=luck.choice((1, 2, 2)),
        log_interval=luck.choice((1, 4, 10)),
        in_bucket=luck.random() < 0.4,
        wandb=luck.choice(("disabled", "disabled", "auto")),
        retry_online_s=luck.choice((3.0, 300.0)),
        check_s=luck.choice((4.0, 60.0)),
        has_key=luck.random() < 0.9,
    )


def run_seed(seed: int, reference: Reference | None) -> tuple[Outcome, Checks]:
    """One history; without a reference the undisturbed one."""
    setting = choose_setting(seed) if reference else Setting()
    simulation = Simulation(seed, setting)
    checks = Checks(simulation, reference)
    faults = Faults(simulation, checks) if reference else None
    outcome = Outcome(seed)
    with simulation.at_work():
        try:
            simulation.world.run(Process(simulation.world, "user", "a"), lambda: _use(simulation, checks, faults))
        except ViolationError as violation:
            outcome.failure = str(violation)
        except Exception as error:
            outcome.failure = f"{type(error).__name__}: {error}"
    outcome.steps, outcome.seconds, outcome.checks = simulation.world.steps, simulation.world.now, checks.num_checks
    outcome.faults, outcome.lines = faults.done if faults else [], simulation.world.lines
    return outcome, checks


def _use(simulation: Simulation, checks: Checks, faults: Faults | None) -> None:
    """A user types the command until the run is done."""
    for disk in (simulation.shared, *simulation.local.values()):
        for path in ("/sim", STORE, TEMPORARY):
            disk.make_folder(path)
        disk.undo.clear()  # they were there long before
    world, quiet_since = simulation.world, 0.0
    for number in range(_MOST_COMMANDS):
        is_changed, simulation.is_changed = simulation.is_changed, False
        driver = simulation.start_driver(is_changed=is_changed)
        while not driver.is_dead:
            world.sleep(2.0)
            if faults is None or not faults.are_over:
                quiet_since = world.now
            elif world.now - quiet_since > _PATIENCE_S:
                checks.refuse("(f) the run does not end")
        _judge_end(simulation, checks, driver)
        num_drivers = len(simulation.drivers)
        is_alone = all(one.is_dead for one in simulation.drivers)
        if driver.result == 0 and is_alone and not (is_changed or simulation.is_changed):
            break
        # Who was told again and again that another driver works on the run waits: that one may stand still for minutes.
        world.sleep(3.0 if number < _IMPATIENT_COMMANDS else 30.0)
        was_orderly = driver.result == 130 and faults is not None and faults.had_only_interrupts(driver)
        if was_orderly and is_alone and len(simulation.drivers) == num_drivers:
            checks.check_interrupted(driver)
    else:
        checks.refuse(f"(f) {_MOST_COMMANDS} commands, and the run is not done")
    if faults is not None:
        checks.check_end()
        checks.check_waits(faults.trouble_until)
    if simulation.setting.wandb != "disabled":
        _upload(simulation, checks)


def _upload(simulation: Simulation, checks: Checks) -> None:
    """The user sends to W&B what it lacks: once while W&B fails and somebody dies, and once more."""
    world, luck, server = simulation.world, simulation.world.random, simulation.wandb
    world.before_step = None  # whatever else fails has failed
    world.sleep(_LASTING_S)
    simulation.client.has_key, server.fault = True, luck.choice((None, *FAULTS))

    def kill() -> None:
        if living := [one for one in world.processes if not one.is_dead and one.name.endswith("of wandb_sync")]:
            world.kill(luck.choice(living))

    world.call_later(_UPLOAD_FAILS_S * luck.random(), kill)
    world.call_later(_UPLOAD_FAILS_S * luck.random(), lambda: setattr(server, "fault", None))
    for _ in range(2):
        uploader = Process(world, "wandb_sync", simulation.setting.machines[0]).start(simulation.upload)
        while not uploader.is_dead:
            world.sleep(2.0)
        if uploader.error is not None:
            raise uploader.error
        world.sleep(_UPLOAD_FAILS_S)
    checks.check_wandb(is_whole=uploader.result)


def _judge_end(simulation: Simulation, checks: Checks, driver: Process) -> None:
    """(f) a driver ends done, refused or failed with a reason, or interrupted."""
    if driver.was_killed:
        return
    if driver.error is not None:
        raise driver.error
    said = " ".join(simulation.consoles[driver].said)
    if driver.result not in (0, 1, 2, 130):
        checks.refuse(f"(f) a driver ends with {driver.result}")
    if driver.result == 2 and "error:" not in said:
        checks.refuse(f"(f) a driver ends with {driver.result} and gives no reason")


def find_reference() -> Reference:
    """The undisturbed run."""
    outcome, checks = run_seed(0, None)
    if outcome.failure:
        raise SystemExit("\n".join([*outcome.lines, outcome.failure]))
    if len(checks.finished) < NUM_FOLDS:
        raise SystemExit("\n".join([*outcome.lines, "the undisturbed run does not finish"]))
    return checks.gather()


def run_seeds(seeds: Iterable[int], *, seconds: float | None = None, until_failed: bool = False) -> list[Outcome]:
    """Many histories, for so many seconds of CPU at most, or until one has failed."""
    reference, began, outcomes = find_reference(), time.process_time(), list[Outcome]()
    gc.freeze()  # what was loaded need not be looked through after each history
    for seed in seeds:
        outcome, _ = run_seed(seed, reference)
        if outcome.failure:
            print(
                f"seed {seed}: {outcome.failure} (after {outcome.steps} steps; {', '.join(outcome.faults)})", flush=True
            )
        outcome.lines = []
        outcomes.append(outcome)
        if (seconds is not None and time.process_time() - began > seconds) or (until_failed and outcome.failure):
            break
    return outcomes


def main(words: list[str]) -> int:
    """See the module."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        raise SystemExit("set PYTHONHASHSEED=0")
    limits = [float(word.partition("=")[2]) for word in words if word.startswith("--seconds=")]
    until_failed, only_wandb = "--until-failed" in words, "--wandb" in words
    words = [word for word in words if not word.startswith("--")]
    first, last = int(words[0]), int(words[1]) if len(words) > 1 else None
    if last is None:
        outcome, _ = run_seed(first, find_reference())
        print("\n".join(outcome.lines))
        print(f"seed {first}: {outcome.failure or 'holds'}; {outcome.steps} steps; {', '.join(outcome.faults)}")
        return bool(outcome.failure)
    began = time.process_time()
    seeds = [*range(first, last), *map(int, words[2:])]
    if only_wandb:
        seeds = [seed for seed in seeds if choose_setting(seed).wandb != "disabled"]
    outcomes = run_seeds(seeds, seconds=limits[0] if limits else None, until_failed=until_failed)
    failed = [one for one in outcomes if one.failure]
    counts = Counter(kind for one in outcomes for kind in one.faults)
    print(
        f"{len(outcomes)} seeds, {sum(one.steps for one in outcomes)} steps, {sum(one.checks for one in outcomes)} looks, "
        f"{sum(counts.values())} faults ({', '.join(f'{kind} {number}' for kind, number in counts.most_common())}), "
        f"{sum(one.seconds for one in outcomes) / 3600:.1f} simulated hours, {time.process_time() - began:.0f} s of CPU: "
        f"{len(failed)} failed"
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
