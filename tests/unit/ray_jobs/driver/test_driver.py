"""Which folds a start trains, what it says and refuses before it trains, and that it ends when it is interrupted."""

import shutil
import signal
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.made_run import make_run

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.cli.console import open_console
from ray_jobs.cluster.signals import listening
from ray_jobs.cluster.start import RayStart
from ray_jobs.config.run import to_dict
from ray_jobs.driver import kfold
from ray_jobs.driver.kfold import _is_up_to_date, _work, keep_failed, run_kfold
from ray_jobs.driver.launcher import MemberFold
from ray_jobs.driver.session import Session, write_inputs
from ray_jobs.errors import RunError, RunFolderError
from ray_jobs.planning.checks import check_run
from ray_jobs.planning.continuation import write_or_compare
from ray_jobs.results import stage
from ray_jobs.runs.checkpoints import write_checkpoint
from ray_jobs.runs.files import write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, write_status
from ray_jobs.runs.json_files.summary import Summary
from trainers.interface import DataError


@pytest.fixture
def leaking_run(small_frame, write_data, tmp_path):
    """Words for a run in `tmp_path/runs` on 24 rows: fold 0 validates v03 and fold 2 v08, which have one text; the only
    test row has the text of v05."""
    small_frame.loc[[3, 8], "title"] = "a [red] vase"
    test = small_frame.drop(columns="views").iloc[[5]].assign(id="t")
    root = write_data(small_frame.assign(fold=small_frame.index % 3), test)
    (root / "test" / "t.jpg").write_bytes((root / "train_val" / "v05.jpg").read_bytes())
    return [f"data.root={root}", f"run.storage={tmp_path / 'runs'}", "folds.kind=predefined", "data.fold_column=fold"]


def test_a_dry_run_tells_what_leaks_and_writes_nothing(leaking_run, tmp_path, capsys):
    assert run_kfold(parse_kfold([*leaking_run, "--dry-run"]), []) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("leak: ")]
    assert told == [
        "leak: 2 of 24 validation rows (2 folds) share their text with rows that train their fold (1 text): "
        "'a [red] vase see [YT_LINK]': v03 like v08 (2 rows)",
        "leak: 1 of 1 test rows share their picture with training rows (1 picture): t like v05",
        "leak: 1 of 1 test rows share their text with training rows (1 text): 'title 5 see [YT_LINK]': t like v05",
    ]
    assert not (tmp_path / "runs").exists()


def test_a_run_on_made_up_data_goes_on_wherever_its_folder_is(tmp_path):
    """A run on object storage is worked on below the folder for temporary files, which is another's on another
    machine."""
    words = ["members=[seed1 training.seed=1]", "run.name=moved", "data.max_rows=40"]
    before = write_or_compare(check_run(parse_kfold([*words, f"run.storage={tmp_path / 'a'}"]).config, None), [], print)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    after = write_or_compare(check_run(parse_kfold([*words, f"run.storage={tmp_path / 'b'}"]).config, None), [], print)
    for name, member in after.members.items():
        kept = member.folder.read_config().trainer
        assert kept.data.root == str(tmp_path / "b" / "moved" / "made_data")
        assert before.members[name].config.trainer.training == kept.training


def test_a_driver_holds_no_rows_while_the_folds_train(leaking_run, monkeypatch):
    """They would take 800 bytes each in the largest of its processes."""
    noted = []

    def note(plan):
        noted.extend(map(weakref.ref, plan.inventory.tables.values()))
        write_inputs(plan)

    def count(self):
        raise RunError(f"{sum(rows() is not None for rows in noted)} of {len(noted)} tables are held")

    monkeypatch.setattr(kfold, "write_inputs", note)
    monkeypatch.setattr(Session, "on_cluster", count)
    with pytest.raises(RunError, match="0 of 2 tables are held"):
        run_kfold(parse_kfold(leaking_run), [])


def test_there_is_something_to_do_where_the_summary_is_of_another_ensemble_or_of_other_folds(tmp_path):
    words = ["run.name=a", "data.max_rows=40", f"run.storage={tmp_path}"]
    plan = write_or_compare(check_run(parse_kfold(words).config, None), [], print)
    assert not _is_up_to_date(plan)
    for fold in (0, 2):
        plan.folder.fold(fold).write_manifest()
    known = {"outcome": "partial", "ensemble": to_dict(plan.config)["ensemble"], "scored_folds": {"main": [0, 2]}}
    for summary in (known | {"scored_folds": {"main": [0]}}, known | {"scored_folds": {"main": [0, 2], "wide": [0]}}):
        write_json(plan.folder.summary, summary)
        assert not _is_up_to_date(plan)
    write_json(plan.folder.summary, known)
    assert _is_up_to_date(plan)
    plan = write_or_compare(check_run(parse_kfold([*words, "ensemble.method=median"]).config, None), [], print)
    assert not _is_up_to_date(plan)


def test_a_combination_that_was_broken_off_is_no_end_of_the_run_under_the_settings_before(tmp_path, monkeypatch):
    folder, config, _ = make_run(tmp_path / "run", num_epochs=1)
    plan = SimpleNamespace(
        folder=folder, config=config, members={"main": SimpleNamespace(folder=folder)}, folds=config.folds
    )
    assert _is_up_to_date(plan)
    before = folder.submission("mean").read_bytes()
    folder.write_config(replace(config, ensemble=replace(config.ensemble, checkpoint="final")))

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "log_news", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stage.run_ensemble_stage(str(folder.root))
    assert folder.submission("mean").read_bytes() != before
    assert not _is_up_to_date(plan)


def test_folds_whose_config_is_gone_are_not_taken_up_by_a_new_run(tmp_path):
    words = ["run.name=left", "data.max_rows=40", f"run.storage={tmp_path}"]
    plan = write_or_compare(check_run(parse_kfold(words).config, None), [], print)
    write_checkpoint(plan.folder.fold(1).checkpoint("resume_0"), b"tensors", {})
    plan.folder.config.unlink()
    with pytest.raises(RunFolderError, match=r"left/config.json is missing, and .*folds/1/checkpoints/resume_0 exists"):
        write_or_compare(check_run(parse_kfold([*words, "optimizer.lr=0.1"]).config, None), [], print)


def test_what_leaks_is_refused_where_asked_and_no_run_is_written(leaking_run, tmp_path):
    with pytest.raises(DataError, match=r"(?s)folds.on_leak=error.*v03 like v08.*t like v05"):
        run_kfold(parse_kfold([*leaking_run, "folds.on_leak=error"]), [])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".kfold_cache"]  # what was found of pictures


def test_grouped_rows_no_longer_leak_across_folds_and_test_rows_are_still_told(leaking_run, capsys):
    run_kfold(parse_kfold([*leaking_run, "folds.kind=random", "folds.on_leak=group", "--dry-run"]), [])
    shown = capsys.readouterr().out
    assert "folds.on_leak=group: 24 rows in 23 groups, the largest of 2 rows" in shown
    assert "validation rows" not in shown
    assert "leak: 1 of 1 test rows share their text" in shown


def test_only_failed_folds_are_kept_for_a_retry(tmp_path):
    folder = RunFolder(tmp_path)
    states = [FoldState.FAILED, FoldState.INTERRUPTED, FoldState.FAILED, FoldState.WAITING]
    for fold, state in enumerate(states):
        write_status(folder, FoldStatus(fold, state))
    folds = [MemberFold(folder, fold) for fold in range(5)]
    assert keep_failed(folds) == [folds[0], folds[2]]
    assert keep_failed(folds[1:3]) == [folds[2]]


@pytest.mark.parametrize(
    ("outcome", "trained", "code"),
    [
        ("partial", [0], 1),
        ("partial", [0, 2], 0),
        ("interrupted", [0], 130),
        ("failed", [0], 1),
        ("complete", [0, 2], 0),
    ],
)
def test_a_fold_that_should_have_been_trained_and_is_not_ends_the_run_with_1(
    tmp_path, monkeypatch, capsys, outcome, trained, code
):
    """The coordinator may die before it has written down that a fold has failed; fold 1 was not to be trained."""
    words = ["run.name=a", "data.max_rows=40", f"run.storage={tmp_path}", "tracking.wandb=disabled"]
    plan = write_or_compare(check_run(parse_kfold(words).config, None), [], print)
    for fold in trained:
        plan.folder.fold(fold).write_manifest()
    monkeypatch.setattr("ray_jobs.driver.kfold._train", lambda *_: Summary(outcome=outcome))
    session = Session("run a", plan.folder, plan.config, RayStart.for_run(plan.config), open_console())
    todo = [MemberFold(plan.folder, fold) for fold in (0, 2)]
    assert session.run(lambda: _work(session, plan, todo, 0.0)) == code
    assert ("not trained: fold 2; the same command goes on" in capsys.readouterr().out) == (
        (outcome, code) == ("partial", 1)
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_library_swallows_is_remembered(number):
    found = signal.signal(number, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    try:
        with listening() as interrupts:
            interrupts.check()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            with pytest.raises(KeyboardInterrupt):
                interrupts.check()
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, found)
