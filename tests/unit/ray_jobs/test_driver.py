"""Which folds a start trains."""

from ray_jobs.coordinator import FoldState, FoldStatus, write_status
from ray_jobs.driver import keep_failed
from ray_jobs.run_folder import RunFolder


def test_only_failed_folds_are_kept_for_a_retry(tmp_path):
    folder = RunFolder(tmp_path)
    states = [FoldState.FAILED, FoldState.INTERRUPTED, FoldState.FAILED, FoldState.WAITING]
    for fold, state in enumerate(states):
        write_status(folder, FoldStatus(fold, state))
    assert keep_failed(folder, [0, 1, 2, 3, 4]) == [0, 2]
    assert keep_failed(folder, [1, 2]) == [2]
