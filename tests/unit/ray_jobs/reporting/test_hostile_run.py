"""Run folders that somebody made to do harm: opening one runs no code, reads no other file and disturbs no terminal."""

import csv
import hashlib
import io
import json
import os
import pickle
import struct
from dataclasses import replace

import pytest
import torch
from support.made_run import make_run

from ray_jobs.cli.console import open_console
from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.run import from_dict, to_dict
from ray_jobs.errors import RunError, RunFolderError
from ray_jobs.reporting.html_report import write_report
from ray_jobs.reporting.live_table import Watcher
from ray_jobs.runs.checkpoints import open_checkpoint, write_checkpoint
from ray_jobs.runs.files import read_parquet, write_csv, write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.worker.resume import ResumePoints
from trainers.clip_regression.config import ModelConfig
from trainers.clip_regression.inventory import check_model
from trainers.interface import DataError

ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\r"


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_the_bomb_of_these_tests_goes_off_when_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "weights.pt", "weights.bin", "plain.pt", "script.pt", "empty.pt"]
)
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_a_weights_file_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path, name):
    path = tmp_path / name
    if name == "empty.pt":
        path.write_bytes(b"")
    elif name == "script.pt":
        torch.jit.script(torch.nn.Identity()).save(str(path))
    elif name == "weights.pt":
        torch.save({"state_dict": {"logit_scale": Bomb(tmp_path / "ran")}}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(DataError, match="no weights file that can be read without running code") as caught:
        check_model(ModelConfig(clip="tiny-clip", pretrained=str(path)))
    assert "False" not in str(caught.value)  # torch's advice is to switch the protection off
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["huge header", "huge tensor"])
def test_a_weights_file_that_claims_terabytes_takes_no_memory(tmp_path, kind):
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    length = 1 << 42 if kind == "huge header" else len(header)
    (tmp_path / "weights.safetensors").write_bytes(struct.pack("<Q", length) + header + bytes(8))
    with pytest.raises(DataError, match="no weights file"):
        check_model(ModelConfig(clip="tiny-clip", pretrained=str(tmp_path / "weights.safetensors")))


@pytest.mark.parametrize(
    "tensors", ["../secret", "{absolute}", "..", "", "model-0123456789ab.safetensors\0", None, 3, ["x"]]
)
def test_a_checkpoint_names_no_file_but_its_own(tmp_path, tensors):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    write_checkpoint(tmp_path / "best", b"tensors", {})
    tensors = str(secret) if tensors == "{absolute}" else tensors
    write_json(
        tmp_path / "best" / "checkpoint.json",
        {"tensors": tensors, "sha256": hashlib.sha256(b"secret").hexdigest(), "description": {}},
    )
    with pytest.raises(RunFolderError, match=r"checkpoint\.json is damaged: expected tensors"):
        open_checkpoint(tmp_path / "best")


@pytest.mark.parametrize(
    "content", ["[]", "{}", '"x"', "[" * 100_000, "9" * 5000, '{"tensors": "model-0123456789ab.safetensors"}']
)
def test_a_checkpoint_description_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "checkpoint.json").write_text(content)
    with pytest.raises(RunFolderError, match="damaged"):
        open_checkpoint(tmp_path)


def test_a_resume_point_with_code_in_it_does_not_count_and_the_code_does_not_run(tmp_path, caplog):
    fold = RunFolder(tmp_path / "run").fold(0)
    write_checkpoint(fold.checkpoint("resume_0"), pickle.dumps(Bomb(tmp_path / "ran")), {"global_step": 9})
    assert ResumePoints(fold).find_newest() is None
    assert "is damaged" in caplog.text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"PAR1" + bytes(range(256)) * 8 + b"PAR1", b"PAR1", pickle.dumps([1]), b""])
def test_predictions_that_are_none_are_refused(tmp_path, content):
    (tmp_path / "test_best.parquet").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"test_best\.parquet is missing or damaged"):
        read_parquet(tmp_path / "test_best.parquet")


@pytest.mark.parametrize(
    "family",
    ["os", "../x", "..", "", "/tmp", "interface", "clip_regression.config", "a\0b", "antigravity", None, 3, []],
)
def test_a_config_names_no_module_outside_trainers(family):
    with pytest.raises((ValueError, TypeError, ModuleNotFoundError)):
        from_dict(to_dict(RECIPES["clip_multimodal_small"]()) | {"family": family})


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        *[("run", "name", name) for name in ("..", "../x", "/x", "a/b", "a\0b", "a\nb", "a\n", ".x", "-x", "", "x" * 200)],
        ("ensemble", "method", "../../x"), ("ensemble", "checkpoint", "../../x"), ("folds", "kind", "../x"),
        ("data", "on_bad_row", "x"), ("run", "surprise", 1), ("folds", "count", "x"), ("folds", "count", []),
        ("folds", "count", 10**12),
    ],
)  # fmt: skip
def test_a_config_file_whose_fields_reach_outside_is_refused(tmp_path, section, field, value):
    values = to_dict(RECIPES["clip_multimodal_small"]())
    write_json(tmp_path / "config.json", values | {section: values[section] | {field: value}})
    with pytest.raises(RunFolderError, match="of another version of this project"):
        RunFolder(tmp_path).read_config()


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "[]", "3", '{"run": []}', '{"family": ' + "9" * 5000 + "}", "\0", "\udcff"]
)
def test_a_config_file_that_is_no_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RunError):
        RunFolder(tmp_path).read_config()


@pytest.mark.parametrize(
    "text",
    [
        "=cmd|'x'!A0",
        "@SUM(1)",
        "+1+cmd|'x'",
        "-2+3+cmd|'x'",
        "\t=1",
        "\r=1",
        " =1",
        "it's bad;=cmd|'x'!A0",
        'bad",@SUM(1)',
    ],
)
def test_no_cell_for_people_begins_with_a_formula_whatever_separates_cells(tmp_path, text):
    write_csv(tmp_path / "bad_rows.csv", ["id", text], [["-dQw4w9WgXcQ", text], ["-1", "-1.5e-07"]])
    content = (tmp_path / "bad_rows.csv").read_bytes().decode()
    for separator in ",;\t":
        for row in csv.reader(io.StringIO(content), delimiter=separator):
            assert not [cell for cell in row if cell.strip()[:1] in ("=", "@", "+")]
    rows = list(csv.reader(io.StringIO(content)))
    assert rows[1][0] == "-dQw4w9WgXcQ"
    assert rows[2] == ["-1", "-1.5e-07"]
    assert rows[1][1] == rows[0][1] != text
    assert rows[1][1].replace("'", "") == text.replace("'", "").replace("\r", " ")


def test_what_a_terminal_would_obey_is_not_shown(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    write_json(
        folder.fold(0).status, {"fold": 0, "state": "failed", "attempt": 1, "error": f"[bold]{ESCAPES}[link=x]y"}
    )
    console = open_console()
    with Watcher([folder], 1, console):
        pass
    console.print(ESCAPES)
    shown = capsys.readouterr().out
    assert "[bold]" in shown
    assert "[link=x]y" in shown
    assert not set("\x1b\x07\x9b\r") & set(shown)


def test_names_and_paths_are_escaped_in_the_report(tmp_path):
    evil = '"><script>alert(1)<'
    folder, config, summary = make_run(tmp_path / f"{evil}b>" / "run", target=evil, failed=(1,))
    page = write_report(folder, config, replace(summary, run=evil, finished=evil)).read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 3
