"""The parts into which rows are divided that no model was trained on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ensemble.config import EnsembleConfig
from ensemble.run import Run


def make_run(groups=None, seed=0):
    ids = [f"r{number:02d}" for number in range(40)]
    columns = {"id": ids, "fold": [0] * 40} | ({} if groups is None else {"group": groups})
    return Run(EnsembleConfig(), {}, 1, ("main",), pa.table(columns), seed=seed), np.array(ids)


def test_rows_of_a_group_are_in_one_part_whatever_the_groups_are_called():
    groups = [7 * (number // 4) for number in range(40)]
    run, ids_N = make_run(groups)
    order = np.random.default_rng(0).permutation(40)
    part_N = run.divide(ids_N[order])
    for group in set(groups):
        assert len(set(part_N[np.array(groups)[order] == group])) == 1
    assert np.unique(part_N, return_counts=True)[1].tolist() == [8] * 5


def test_rows_without_groups_are_each_for_itself_and_another_seed_divides_them_otherwise():
    run, ids_N = make_run()
    part_N = run.divide(ids_N)
    assert np.unique(part_N, return_counts=True)[1].tolist() == [8] * 5
    assert (part_N == run.divide(ids_N)).all()
    assert (part_N != make_run(seed=1)[0].divide(ids_N)).any()


@pytest.mark.parametrize(("num_groups", "num_parts"), [(2, 2), (3, 2), (7, 3)])
def test_of_few_groups_each_part_has_two_where_there_are_enough(num_groups, num_parts):
    run, ids_N = make_run([number % num_groups for number in range(40)])
    assert set(run.divide(ids_N)) == set(range(num_parts))
