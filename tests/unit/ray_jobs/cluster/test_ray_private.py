"""Every private name of Ray that the project uses is where it was: one test each, which says what has moved."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from support.processes import REPOSITORY

from ray_jobs.cluster import ray_private
from ray_jobs.driver import failures

RAYLET = Path(ray.__file__).parent / "_raylet.so"


@pytest.mark.parametrize(
    ("module", "name", "variable"),
    [
        ("ray.train.v2._internal.constants", "HEALTH_CHECK_INTERVAL_S_ENV_VAR", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"),
        (
            "ray.train.v2._internal.constants",
            "ENABLE_PREEMPTION_WATCHER_ENV_VAR",
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER",
        ),
        ("ray.train.constants", "RAY_TRAIN_ENABLE_STATE_TRACKING", "RAY_TRAIN_ENABLE_STATE_TRACKING"),
        (
            "ray._private.accelerators",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO_ENV_VAR",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
        ),
    ],
)
def test_ray_reads_a_setting_by_its_name(module, name, variable):
    assert getattr(importlib.import_module(module), name) == variable
    assert variable in ray_private.SETTINGS | ray_private.SETTINGS_OF_JOINED_CLUSTER


def test_no_call_of_ray_starts_a_cluster_by_itself_where_that_is_forbidden():
    code = "from ray._private import auto_init_hook as hook; assert not hook.enable_auto_connect"
    environment = os.environ | {"RAY_ENABLE_AUTO_CONNECT": ray_private.SETTINGS["RAY_ENABLE_AUTO_CONNECT"]}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize("name", ["RAY_enable_worker_prestart", ray_private.LIST_NODES])
def test_rays_compiled_core_knows_a_name(name):
    assert name.removeprefix("RAY_").encode() in RAYLET.read_bytes(), f"{name} is not in {RAYLET.name} any more"


def test_every_setting_is_tested():
    settings = ray_private.SETTINGS | ray_private.SETTINGS_OF_JOINED_CLUSTER | ray_private.SETTINGS_OF_OWN_CLUSTER
    text = Path(__file__).read_text()
    assert [name for name in settings if name not in text] == []


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "1")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    ray_private.apply_settings(ray_private.SETTINGS)
    assert os.environ["RAY_ENABLE_AUTO_CONNECT"] == "1"
    assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.2"


def test_ray_marks_the_environment_of_a_submitted_job():
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    assert ray_private.in_job({RAY_JOB_CONFIG_JSON_ENV_VAR: "{}"})
    assert not ray_private.in_job({})


@pytest.mark.parametrize(
    ("ask", "name", "answer", "found"),
    [
        (ray_private.find_draining_nodes, "get_draining_nodes", {"ab12": 0}, {"ab12"}),
        (ray_private.read_cluster_config, "get_cluster_config", None, None),
    ],
)
def test_rays_state_answers_what_no_public_call_does(monkeypatch, ask, name, answer, found):
    monkeypatch.setattr(ray._private.state.state, name, lambda: answer)  # fails where there is no such name
    assert ask() == found


def test_a_clusters_config_has_the_fields_that_are_read():
    from ray.core.generated.autoscaler_pb2 import ClusterConfig

    (group,) = ClusterConfig(node_group_configs=[{"resources": {"CPU": 4}, "max_count": 3}]).node_group_configs
    assert (dict(group.resources), group.max_count) == ({"CPU": 4}, 3)


def test_the_address_that_ray_start_notes_is_read(tmp_path, monkeypatch):
    from ray._private import utils

    monkeypatch.setattr(utils, "get_ray_address_file", lambda _: tmp_path / "ray_current_cluster")
    assert ray_private.read_noted_address() is None
    utils.write_ray_address("10.0.0.7:6379")
    assert ray_private.read_noted_address() == "10.0.0.7:6379"


TOKEN = "import os; from ray_jobs.cluster.ray_private import read_token, use_token_if_there_is_one as use; "


@pytest.mark.parametrize(
    ("code", "environment", "printed"),
    [
        ("print(read_token())", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}, "f" * 64),
        ("print(read_token())", {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "f" * 64}, ""),
        ("print(read_token())", {"RAY_AUTH_MODE": "token"}, ""),
        ("use(); print(read_token())", {"RAY_AUTH_TOKEN": "f" * 64}, "f" * 64),
        ("use(); print(read_token())", {}, ""),
    ],
)
def test_the_token_is_read_where_it_is_used(tmp_path, code, environment, printed):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    kept |= {"HOME": str(tmp_path), **environment}
    done = subprocess.run(
        [sys.executable, "-c", TOKEN + code], env=kept, cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == printed


def test_a_worker_is_known_by_its_title():
    from ray._private.ray_constants import WORKER_PROCESS_TYPE_IDLE_WORKER

    with subprocess.Popen([WORKER_PROCESS_TYPE_IDLE_WORKER, "60"], executable=shutil.which("sleep")) as process:
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes():  # it is about to be
            continue
        is_known = ray_private.is_worker_process(process.pid)
        process.kill()
    assert is_known
    assert not ray_private.is_worker_process(os.getpid())


@pytest.mark.parametrize("name", [*failures._DEATHS, "PreemptionError", "ActorUnschedulableError"])
def test_ray_has_an_error_of_the_name_by_which_it_is_known(name):
    rooms = ("ray.exceptions", "ray.train.v2._internal.exceptions", "ray.train.v2.api.exceptions")
    assert any(hasattr(importlib.import_module(room), name) for room in rooms), f"Ray has no {name} any more"


def test_ray_trains_functions_are_replaced_for_a_while():
    import ray.train
    from ray.train.v2._internal.execution import train_fn_utils

    class Own:
        def report(self, metrics, **_):
            self.metrics = metrics

        def get_checkpoint(self):
            return "checkpoint"

        def get_dataset_shard(self, asked):
            return asked.dataset_name

    own, known = Own(), train_fn_utils.LocalTrainFnUtils("test")
    train_fn_utils.set_train_fn_utils(known)
    try:
        with ray_private.train_functions_replaced(own) as of_ray:
            ray.train.report({"loss": 1})
            assert own.metrics == {"loss": 1}
            assert (ray.train.get_checkpoint(), ray.train.get_dataset_shard("test")) == ("checkpoint", "test")
            assert ray.train.get_context().get_world_size() == 1
        assert of_ray is known is train_fn_utils.get_train_fn_utils()
        assert ray.train.get_checkpoint() is None
    finally:
        train_fn_utils.set_train_fn_utils(None)


def test_private_names_are_used_in_one_module():
    for path in (REPOSITORY / "ray_jobs").rglob("*.py"):
        if path.name != "ray_private.py":
            text = path.read_text()
            for name in ("ray._private", "ray._raylet", "/ray.rpc.", *ray_private.SETTINGS):
                assert name not in text, f"{path}: {name} belongs into ray_private.py"
