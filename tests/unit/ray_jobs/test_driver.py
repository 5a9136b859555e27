"""Which folds a start trains, and that it ends when it is interrupted."""

import os
import signal

import pytest

from ray_jobs.coordinator import FoldState, FoldStatus, write_status
from ray_jobs.driver import keep_failed
from ray_jobs.interrupts import listening
from ray_jobs.run_folder import RunFolder


def test_only_failed_folds_are_kept_for_a_retry(tmp_path):
    folder = RunFolder(tmp_path)
    states = [FoldState.FAILED, FoldState.INTERRUPTED, FoldState.FAILED, FoldState.WAITING]
    for fold, state in enumerate(states):
        write_status(folder, FoldStatus(fold, state))
    assert keep_failed(folder, [0, 1, 2, 3, 4]) == [0, 2]
    assert keep_failed(folder, [1, 2]) == [2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_library_swallows_is_remembered(number):
    before = signal.getsignal(number)
    with listening() as interrupts:
        interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert signal.getsignal(number) == before
