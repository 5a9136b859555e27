"""Members of different families in one run: what they share, which rows they must have, and what the run makes of the
rows of all."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from support.second_family import add_family

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.config.members import resolve_members
from ray_jobs.config.run import from_dict, to_dict
from ray_jobs.driver.session import write_inputs
from ray_jobs.errors import ConfigChangedError, RunError
from ray_jobs.planning.checks import check_run
from ray_jobs.planning.continuation import write_or_compare
from ray_jobs.planning.member_rows import Reader, compare_rows, find_places, with_all_row_keys
from ray_jobs.runs.folder import RunFolder
from trainers.interface import Inventory, RowKeys

RIDGE = "ridge ridge data.columns=[date]"


@pytest.fixture(autouse=True)
def with_second_family(monkeypatch):
    add_family(monkeypatch)


@pytest.fixture
def plan_run(tmp_path, small_frame, write_data):
    """A function that plans a run on 24 rows and 5 test rows, with these members and fields."""
    test = small_frame.head(5).assign(id=[f"t{number}" for number in range(5)])
    root = write_data(small_frame, test)
    words = [f"data.root={root}", f"run.storage={tmp_path / 'runs'}", "run.name=x"]

    def plan(*members: str, fields: tuple[str, ...] = ()):
        return check_run(parse_kfold([*words, *fields, f"members=[{', '.join(members)}]"]).config, None)

    plan.root = root
    return plan


def test_a_member_of_another_family_has_the_fields_of_the_run_s_data_that_it_knows_and_its_own_sections():
    words = ["members=[ridge ridge model.strength=3 data.columns=[year]]", "data.target=price", "data.root=/d"]
    config = parse_kfold(words).config
    ridge = resolve_members(config)["ridge"]
    assert (ridge.family, ridge.recipe, ridge.trainer.model.strength) == ("ridge", "ridge", 3)
    data = ridge.trainer.data
    assert (data.root, data.target, data.columns, data.train_table) == ("/d", "price", ("year",), "train_val.csv")
    assert ridge.folds == config.folds
    assert from_dict(json.loads(json.dumps(to_dict(ridge)))) == ridge


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("a ridge model.hidden_dim=3", "member 'a': no field 'model.hidden_dim'"),
        ("a unet_segmentation_small", "recipe unet_segmentation_small predicts maps and the run numbers"),
        ("a ridge folds.count=5", "of the folds only folds.seed may differ"),
    ],
)
def test_a_member_of_another_family_that_cannot_be_is_refused_before_the_data_is_read(member, message):
    with pytest.raises(RunError) as error:
        resolve_members(parse_kfold([f"members=[{member}]"]).config)
    assert message in str(error.value)


def test_members_that_read_alike_share_what_is_read_and_have_a_folder_of_inputs_for_each_family(plan_run):
    from trainers.ridge import inventory

    inventory.reads.clear()
    members = (RIDGE, "firm ridge data.columns=[date] model.strength=9", "views ridge data.columns=[views]")
    plan = plan_run("wide model.hidden_dim=9", *members, "again ridge data.columns=[date] folds.seed=7")
    assert Counter(inventory.reads) == {("date",): 1, ("views",): 1}
    assert [one.config.trainer.model.strength for one in list(plan.members.values())[2:4]] == [1, 9]
    assert plan.members["wide"].config.trainer.model.hidden_dim == 9
    assert all(plan.members[name].folds is plan.folds for name in ("wide", "ridge", "firm", "views"))
    assert plan.members["again"].folds.ids.tolist() == plan.folds.ids.tolist()
    plan = write_or_compare(plan, [], print)
    write_inputs(plan)
    inputs = plan.folder.inputs
    assert {path.suffix for path in inputs.iterdir()} == {".arrow", ""}
    assert sorted(path.name for path in (inputs / "ridge").iterdir()) == ["test.parquet", "train.parquet"]
    assert [RunFolder(plan.members[name].folder.root).inputs for name in ("main", "wide", "firm")] == [
        inputs, inputs, inputs / "ridge",
    ]  # fmt: skip


def test_rows_that_a_member_has_dropped_and_the_run_keeps_are_refused_with_the_reason_and_what_to_do(plan_run):
    frame = pd.read_csv(plan_run.root / "train_val.csv", dtype=str)
    frame.loc[[3, 5], "channel"] = ""
    frame.to_csv(plan_run.root / "train_val.csv", index=False)
    with pytest.raises(RunError) as error:
        plan_run("ridge ridge data.columns=[channel]")
    text = str(error.value)
    for words in (
        "member 'ridge' does not have the rows of the run",
        "2 training rows that the run (clip_regression) has and member 'ridge' (ridge) has not, such as 'v03' "
        "(an empty cell), 'v05' (an empty cell); ridge has dropped 2 of them as bad",
        "Mend these rows or take them out of the table",
        "make ridge the run's own recipe (--config-name) and clip_multimodal_small its member",
    ):
        assert words in text
    assert not list(plan_run.root.parent.glob("runs/x/*"))


def test_a_row_that_the_run_s_own_recipe_drops_trains_no_member_and_is_told(plan_run):
    (plan_run.root / "train_val" / "v03.jpg").write_bytes(b"no picture")
    plan = plan_run(RIDGE, "text data.train_pictures= data.test_pictures=", fields=("data.on_bad_row=drop",))
    assert len(plan.folds.ids) == 23
    assert "v03" not in plan.folds.ids
    assert len(plan.members["ridge"].inventory.ids) == 24
    (note, other) = [note for note in plan.inventory.notes if "train no member" in note]
    assert "1 training rows are dropped by the run (clip_regression) and could be used by member 'ridge'" in note
    assert "'v03' (" in note
    assert "member 'text' (clip_regression)" in other
    plan = write_or_compare(plan, [], print)
    assert "v03" in plan.folder.bad_rows.read_text()
    assert json.loads(plan.members["ridge"].folder.provenance.read_text())["num_train"] == 23


def test_tables_that_do_not_agree_are_refused_with_what_differs(plan_run):
    frame = pd.read_csv(plan_run.root / "train_val.csv")
    frame = pd.concat([frame, frame.head(1).assign(id="w1")])
    frame.to_csv(plan_run.root / "more.csv", index=False)
    with pytest.raises(RunError, match=r"1 training rows that member 'ridge' \(ridge\) has .*, such as 'w1'\n"):
        plan_run("ridge ridge data.train_table=more.csv")
    frame = frame.head(24).iloc[::-1]
    frame["views"] += frame["id"] == "v02"
    frame.to_csv(plan_run.root / "other.csv", index=False)
    with pytest.raises(RunError, match=r"1 rows have another target, such as 'v02': (\d+).0 \(views\) in the run"):
        plan_run("ridge ridge data.train_table=other.csv")
    with pytest.raises(RunError, match=r"5 test rows that the run \(clip_regression\) has and .*such as 't0', "):
        plan_run("ridge ridge data.test_table=absent.csv")
    with pytest.raises(RunError, match=r"member 'ridge' \(recipe ridge\): .* has no column date2"):
        plan_run("ridge ridge data.columns=[date2]")


def test_a_member_may_have_the_rows_in_another_order_and_from_another_table(plan_run):
    frame = pd.read_csv(plan_run.root / "train_val.csv").iloc[::-1]
    frame.to_csv(plan_run.root / "other.csv", index=False)
    plan = plan_run("ridge ridge data.train_table=other.csv")
    assert plan.members["ridge"].inventory.ids[0] == "v23"
    assert plan.folds.ids[0] == "v00"


def test_leaks_are_looked_for_in_what_all_families_read(plan_run):
    found = {leak.kind for leak in plan_run(RIDGE).leaks}
    assert "twin" not in found
    plan = plan_run(f"{RIDGE} data.twins=channel")
    assert "twin" in {leak.kind for leak in plan.leaks}
    plan = plan_run(f"{RIDGE} data.twins=channel", fields=("folds.on_leak=group",))
    channels = pd.read_csv(plan_run.root / "train_val.csv").set_index("id")["channel"]
    folds = pd.Series(plan.folds.fold, plan.folds.ids)
    assert (folds.groupby(channels).nunique() == 1).all()


def test_a_run_is_continued_only_on_the_data_that_each_family_has_read(plan_run):
    member = "ridge ridge data.train_table=other.csv"
    frame = pd.read_csv(plan_run.root / "train_val.csv")
    frame.to_csv(plan_run.root / "other.csv", index=False)
    plan = write_or_compare(plan_run(member), [], print)
    write_or_compare(plan_run(member), [], print)
    frame["channel"] = "new"
    frame.to_csv(plan_run.root / "other.csv", index=False)
    with pytest.raises(ConfigChangedError, match=r"members/ridge exists and its data changed"):
        write_or_compare(plan_run(member), [], print)
    assert plan.folder.config.exists()


def make_reader(name: str, ids: list[str], family: str = "a", **fields) -> Reader:
    inventory = Inventory(np.array(ids), np.arange(len(ids)) * 1.0, "y", 0, "f", **fields)
    config = parse_kfold([]).config
    return Reader(name, dataclasses.replace(config, family=family), inventory)


def test_equal_keys_of_two_families_are_one_kind_and_others_have_the_member_s_name():
    keys = np.array([5, 5, 0, 7], np.uint64)
    main = make_reader("main", list("pqrs"), row_keys={"text": RowKeys(keys, keys[:0])})
    same = RowKeys(np.array([1, 2, 8, 8], np.uint64) * np.array([1, 0, 1, 1], np.uint64), keys[:0])
    other = RowKeys(np.array([3, 4, 9, 9], np.uint64), keys[:0], {9: "nine"})
    member = make_reader("m", list("srqp"), "b", row_keys={"text": other, "word": same})
    found = with_all_row_keys(main, [member]).row_keys
    assert list(found) == ["text", "text (m)", "word"] or list(found) == ["text", "text (m)"]
    assert found["text (m)"].train.tolist() == [9, 9, 4, 3]
    assert list(with_all_row_keys(main, [make_reader("m", list("pqrs"), row_keys={"text": other})]).row_keys) == ["text"]


def test_places_are_found_by_id():
    assert find_places(np.array(["b", "x", "a"]), np.array(["a", "b"])).tolist() == [1, -1, 0]
    assert find_places(np.array(["b"]), np.array([], str)).tolist() == [-1]


def test_targets_of_other_types_are_compared_as_texts_and_a_missing_one_is_told():
    run = make_reader("main", ["a", "b"])
    words = dataclasses.replace(run.inventory, target=np.array(["0.0", "1.5"]))
    with pytest.raises(RunError, match=r"1 rows have another target, such as 'b': 1.0 \(y\)"):
        compare_rows(run, Reader("m", run.config, words))
    with pytest.raises(RunError, match=r"member 'm' \(a\) has no target"):
        compare_rows(run, Reader("m", run.config, dataclasses.replace(run.inventory, target=None)))
