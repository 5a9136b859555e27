"""Members of different families in one run: what they share, which rows they must have, and what the run makes of the
rows of all."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from support.processes import REPOSITORY

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.config.members import list_families, resolve_members
from ray_jobs.config.run import from_dict, to_dict
from ray_jobs.driver.kfold import _describe_member
from ray_jobs.driver.session import write_inputs
from ray_jobs.errors import ConfigChangedError, RunError
from ray_jobs.planning.checks import check_run
from ray_jobs.planning.continuation import write_or_compare
from ray_jobs.planning.member_rows import Reader, compare_rows, find_places, with_all_row_keys
from ray_jobs.runs.folder import RunFolder
from trainers.interface import Inventory, RowKeys
from trainers.own_trainer import inventory as own_inventory

TRAINER = f"own_trainer trainer.path={REPOSITORY / 'tests' / 'support' / 'ridge.py'}:train_fold"
RIDGE = f"ridge {TRAINER}"


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
    words = [f"members=[{RIDGE} my.strength=3 data.time_column=date]", "data.target=price", "data.root=/d"]
    config = parse_kfold(words).config
    ridge = resolve_members(config)["ridge"]
    assert (ridge.family, ridge.recipe, ridge.trainer.my.strength) == ("own_trainer", "own_trainer", 3)
    data = ridge.trainer.data
    assert (data.root, data.target, data.id_column, data.train_table) == ("/d", "price", "id", "train_val.csv")
    assert (data.time_column, ridge.folds) == ("date", config.folds)
    assert from_dict(json.loads(json.dumps(to_dict(ridge)))).trainer.data == data
    assert list_families(config) == ["clip_regression", "own_trainer"]
    assert _describe_member(config, ridge) == f"{TRAINER} my.strength=3 data.time_column=date (own_trainer)"


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (f"a {TRAINER} my.hidden_dim=3", "--members: 'a': no field 'my.hidden_dim'"),
        ("a own_trainer trainer.path=/nowhere.py:f", "--members: 'a': trainer.path: no such file /nowhere.py"),
        (f"a {TRAINER} folds.count=5", "of the folds only folds.seed may differ"),
        (f"a {TRAINER} data.time_column=views", "expected the name of a column that is nothing else, too"),
    ],
)
def test_a_member_of_another_family_that_cannot_be_is_refused_before_the_data_is_read(member, message):
    with pytest.raises(RunError) as error:
        resolve_members(parse_kfold([f"members=[{member}]"]).config)
    assert message in str(error.value)


def test_a_member_of_another_kind_that_its_data_decides_is_refused(plan_run):
    frame = pd.read_csv(plan_run.root / "train_val.csv")
    frame.assign(views=frame.index % 2).to_csv(plan_run.root / "train_val.csv", index=False)
    with pytest.raises(RunError, match=r"member 'a' \(own_trainer\) predicts classes and the run .* numbers"):
        plan_run("a own_classifier")


def test_members_that_read_alike_share_what_is_read_and_have_inputs_of_their_own(plan_run, monkeypatch):
    read, read_rows = [], own_inventory.read_rows
    monkeypatch.setattr(
        own_inventory, "read_rows", lambda path, *a, **k: read.append(path.name) or read_rows(path, *a, **k)
    )
    (plan_run.root / "other.csv").write_bytes((plan_run.root / "train_val.csv").read_bytes())
    others = (RIDGE, f"firm {TRAINER} my.strength=9", f"copy {TRAINER} data.train_table=other.csv")
    plan = plan_run("wide model.hidden_dim=9", *others, f"again {TRAINER} folds.seed=7")
    assert read == ["train_val.csv", "test.csv", "other.csv", "test.csv"]
    assert [plan.members[name].config.trainer.my.strength for name in ("ridge", "firm", "again")] == [1, 9, 1]
    assert plan.members["wide"].config.trainer.model.hidden_dim == 9
    assert all(plan.members[name].folds is plan.folds for name in ("wide", "ridge", "firm", "copy"))
    assert plan.members["again"].folds.ids.tolist() == plan.folds.ids.tolist()
    assert (plan.members["again"].folds.fold != plan.folds.fold).any()
    plan = write_or_compare(plan, [], print)
    write_inputs(plan)
    inputs = {name: RunFolder(member.folder.root).inputs for name, member in plan.members.items()}
    assert inputs["main"] == inputs["wide"] == plan.folder.inputs
    assert inputs["ridge"] == inputs["firm"] == inputs["again"] != inputs["copy"]
    for name in ("ridge", "copy"):
        assert inputs[name].parent == plan.folder.inputs
        assert {"train.parquet", "test.parquet"} < {path.name for path in inputs[name].iterdir()}


def test_rows_that_a_member_has_dropped_and_the_run_keeps_are_refused_with_the_reason_and_what_to_do(plan_run):
    (plan_run.root / "train_val" / "v03.jpg").write_bytes(b"no picture")
    (plan_run.root / "train_val" / "v05.jpg").unlink()
    fields = ("data.train_pictures=", "data.test_pictures=", "data.on_bad_row=drop")
    with pytest.raises(RunError) as error:
        plan_run("seen data.train_pictures=train_val data.test_pictures=test", fields=fields)
    text = str(error.value)
    for words in (
        "member 'seen' does not have the rows of the run",
        "2 training rows that the run (clip_regression) has and member 'seen' (clip_regression) has not, such as 'v03' (",
        "; clip_regression has dropped 2 of them as bad",
        "Mend these rows or take them out of the table",
        "Or make 'seen' the run's own recipe and the other one a member",
    ):
        assert words in text
    assert not list(plan_run.root.parent.glob("runs/x/*"))


def test_a_row_that_the_run_s_own_recipe_drops_trains_no_member_and_is_told(plan_run):
    (plan_run.root / "train_val" / "v03.jpg").write_bytes(b"no picture")
    plan = plan_run(RIDGE, "text data.train_pictures= data.test_pictures=", fields=("data.on_bad_row=drop",))
    assert len(plan.folds.ids) == 23
    assert "v03" not in plan.folds.ids
    assert len(plan.members["ridge"].inventory.ids) == 24
    notes = [note for note in plan.inventory.notes if "has dropped" in note]
    told = "the run (clip_regression) has dropped 1 training row that member 'ridge' (own_trainer) could use, such as"
    assert [told in note for note in notes].count(True) == 1
    assert all("'v03' (" in note for note in notes)
    assert any("member 'text' (clip_regression)" in note for note in notes)
    plan = write_or_compare(plan, [], print)
    assert "v03" in plan.folder.bad_rows.read_text()
    assert json.loads(plan.members["ridge"].folder.provenance.read_text())["num_train"] == 23


def test_tables_that_do_not_agree_are_refused_with_what_differs(plan_run):
    frame = pd.read_csv(plan_run.root / "train_val.csv")
    frame = pd.concat([frame, frame.head(1).assign(id="w1")])
    frame.to_csv(plan_run.root / "more.csv", index=False)
    with pytest.raises(RunError, match=r"1 training row that member 'ridge' \(own_trainer\) has .*, such as 'w1'\n"):
        plan_run(f"{RIDGE} data.train_table=more.csv")
    frame = frame.head(24).iloc[::-1]
    frame["views"] += frame["id"] == "v02"
    frame.to_csv(plan_run.root / "other.csv", index=False)
    with pytest.raises(RunError, match=r"another target in 1 training row, such as 'v02': \d+.0 \(views\) in the run"):
        plan_run(f"{RIDGE} data.train_table=other.csv")
    with pytest.raises(RunError, match=r"5 test rows that the run .* has and .*such as 't0', 't1', 't2', …") as error:
        plan_run(f"{RIDGE} data.test_table=other.csv")
    assert "24 test rows that member 'ridge' (own_trainer) has and the run (clip_regression) has not" in str(
        error.value
    )
    with pytest.raises(RunError, match=r"member 'ridge' \(recipe own_trainer\): .* no column 'day'"):
        plan_run(f"{RIDGE} data.time_column=day")


def test_a_member_may_have_the_rows_in_another_order_and_from_another_table(plan_run):
    pd.read_csv(plan_run.root / "train_val.csv").iloc[::-1].to_csv(plan_run.root / "other.csv", index=False)
    plan = plan_run(f"{RIDGE} data.train_table=other.csv")
    assert (plan.members["ridge"].inventory.ids[0], plan.folds.ids[0]) == ("v23", "v00")


def test_leaks_are_looked_for_in_what_all_families_read(plan_run):
    """The run's own recipe does not read the channel."""
    assert "group" not in {leak.kind for leak in plan_run(RIDGE).leaks}
    member = f"{RIDGE} data.group_column=channel"
    assert "group" in {leak.kind for leak in plan_run(member).leaks}
    plan = plan_run(member, fields=("folds.on_leak=group", "data.text_columns=[title]"))
    channels = pd.read_csv(plan_run.root / "train_val.csv").set_index("id")["channel"]
    assert (pd.Series(plan.folds.fold, plan.folds.ids).groupby(channels).nunique() == 1).all()


def test_a_run_is_continued_only_on_the_data_that_each_family_has_read(plan_run):
    member = f"{RIDGE} data.train_table=other.csv"
    frame = pd.read_csv(plan_run.root / "train_val.csv")
    frame.to_csv(plan_run.root / "other.csv", index=False)
    write_or_compare(plan_run(member), [], print)
    write_or_compare(plan_run(member), [], print)
    frame.assign(channel="new").to_csv(plan_run.root / "other.csv", index=False)
    with pytest.raises(ConfigChangedError, match=r"members/ridge exists and its data changed"):
        write_or_compare(plan_run(member), [], print)


def make_reader(name: str, ids: list[str], family: str = "a", **fields) -> Reader:
    inventory = Inventory(np.array(ids), np.arange(len(ids)) * 1.0, "y", 0, "f", **fields)
    return Reader(name, dataclasses.replace(parse_kfold([]).config, family=family), inventory)


def test_equal_keys_of_two_families_are_one_kind_and_others_have_the_member_s_name():
    none = np.array([], np.uint64)
    main = make_reader("main", list("pqrs"), row_keys={"text": RowKeys(np.array([5, 5, 0, 7], np.uint64), none)})
    same = RowKeys(np.array([6, 0, 2, 2], np.uint64), none)
    other = RowKeys(np.array([3, 4, 9, 9], np.uint64), none, {9: "nine"})
    member = make_reader("m", list("srqp"), "b", row_keys={"text": other, "word": same})
    found = with_all_row_keys(main, [member]).row_keys
    assert list(found) == ["text", "text (m)"]
    assert found["text (m)"].train.tolist() == [9, 9, 4, 3]
    alike = make_reader("m", list("pqrs"), row_keys={"text": other})
    assert list(with_all_row_keys(main, [alike]).row_keys) == ["text"]


def test_places_are_found_by_id():
    assert find_places(np.array(["b", "x", "a"]), np.array(["a", "b"])).tolist() == [1, -1, 0]
    assert find_places(np.array(["b"]), np.array([], str)).tolist() == [-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": np.array(["0.0", "1.5"])}, r"another target in 1 training row, such as 'b': 1.0 \(y\)"),
        ({"target": None}, r"member 'm' \(a\) has no target"),
        ({"classes": ("x", "y")}, "other classes: none in the run .*, 'x', 'y' in member 'm'"),
    ],
)
def test_targets_that_differ_are_told(changes, message):
    run = make_reader("main", ["a", "b"])
    with pytest.raises(RunError, match=message):
        compare_rows(run, Reader("m", run.config, dataclasses.replace(run.inventory, **changes)))
