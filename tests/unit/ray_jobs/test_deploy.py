"""The files that describe clusters: `cluster.yaml`, and those of `ray_jobs/deploy`.

Checked are: the cluster.yaml forms, by what `ray up` itself does before it asks Google or opens SSH (schema, defaults,
node types), and what they would ask Google for, by the description of its Compute API that its client brings; which
machines Ray's autoscaler chooses; the RayJob, by the code with which Ray's autoscaler reads a RayCluster, and its field
names by KubeRay's API reference (v1.6) and Kubernetes' (v1.34) as written down here; that the files agree with each
other and with the pins, and that their commands are understood by this project's command line. Not checked, since it
takes an account or a Kubernetes cluster: whether Google has these machine types and images, values of pod fields, what
KubeRay makes of it."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import googleapiclient.discovery_cache
import jsonschema
import pytest
import yaml
from ray.autoscaler._private.gcp.config import get_node_type
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.event_logger import AutoscalerEventLogger  # noqa: F401  (before the scheduler, which it imports in a circle)
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent
from support.processes import REPOSITORY

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.cluster.placement import ClusterResources, Resources, place_folds
from ray_jobs.cluster.resources import parse_startable
from ray_jobs.config.resources import ResourcesConfig
from ray_jobs.kfold import main

DEPLOY = REPOSITORY / "ray_jobs" / "deploy"
CLUSTER_FILES = {path.name: path for path in (REPOSITORY / "cluster.yaml", DEPLOY / "on_premise.yaml")}
RAYJOB, VOLUME = DEPLOY / "rayjob.yaml", DEPLOY / "volume.yaml"
SKY = DEPLOY / "sky.yaml"
PAGE = DEPLOY / "README.md"
GOOGLE = json.loads(
    (Path(googleapiclient.discovery_cache.__file__).parent / "documents" / "compute.v1.json").read_text()
)["schemas"]

# Field names of KubeRay's API; a string names the mapping that the field holds, a list of one what its items are.
POD_TEMPLATE = {"metadata": None, "spec": "PodSpec"}
KUBERAY: dict[str, dict[str, Any]] = {
    "Pod": {"apiVersion": None, "kind": None, "metadata": None, "spec": "PodSpec"},
    "RayJob": {"apiVersion": None, "kind": None, "metadata": None, "spec": "RayJobSpec"},
    "RayJobSpec": dict.fromkeys(
        "activeDeadlineSeconds backoffLimit metadata clusterSelector managedBy deletionStrategy entrypoint "
            "runtimeEnvYAML jobId "
        "submissionMode entrypointResources entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished "
            "shutdownAfterJobFinishes "
        "suspend".split()
    ) | {"rayClusterSpec": "RayClusterSpec", "submitterPodTemplate": "PodTemplate",
    "submitterConfig": "SubmitterConfig"},
    "SubmitterConfig": {"backoffLimit": None},
    "RayClusterSpec": dict.fromkeys(
        "suspend managedBy rayVersion enableInTreeAutoscaling gcsFaultToleranceOptions headServiceAnnotations".split()
    ) | {"authOptions": "AuthOptions", "autoscalerOptions": "AutoscalerOptions", "headGroupSpec": "HeadGroupSpec",
    "workerGroupSpecs": ["WorkerGroupSpec"]},
    "AuthOptions": dict.fromkeys(["mode", "secretName"]),
    "AutoscalerOptions": dict.fromkeys(
        "version resources image imagePullPolicy env envFrom volumeMounts securityContext idleTimeoutSeconds "
            "upscalingMode".split()
    ),
    "HeadGroupSpec": dict.fromkeys("serviceType headService enableIngress rayStartParams resources labels".split()) | {"template": "PodTemplate"},
    "WorkerGroupSpec": dict.fromkeys(
        "groupName replicas minReplicas maxReplicas numOfHosts idleTimeoutSeconds suspend priority "
            "rayStartParams resources labels "
        "scaleStrategy".split()
    ) | {"template": "PodTemplate"},
    "PodTemplate": POD_TEMPLATE,
    "PodSpec": dict.fromkeys(
        "affinity automountServiceAccountToken imagePullSecrets initContainers nodeSelector "
            "priorityClassName restartPolicy "
        "schedulerName securityContext serviceAccountName terminationGracePeriodSeconds "
            "topologySpreadConstraints".split()
    ) | {"containers": ["Container"], "tolerations": ["Toleration"], "volumes": ["Volume"]},
    "Container": dict.fromkeys(
        "args command image imagePullPolicy livenessProbe name readinessProbe securityContext startupProbe "
            "stdin tty workingDir".split()
    ) | {"env": ["EnvVar"], "envFrom": ["EnvFrom"], "lifecycle": "Lifecycle", "ports": ["Port"],
    "resources": "Resources", "volumeMounts": ["Mount"]},
    "Toleration": dict.fromkeys("effect key operator tolerationSeconds value".split()),
    "Volume": {"name": None, "persistentVolumeClaim": "Claim", "emptyDir": "EmptyDir", "configMap": None, "secret": None},
    "Claim": dict.fromkeys(["claimName", "readOnly"]),
    "EmptyDir": dict.fromkeys(["medium", "sizeLimit"]),
    "EnvVar": dict.fromkeys(["name", "value", "valueFrom"]),
    "EnvFrom": {"prefix": None, "configMapRef": "SecretRef", "secretRef": "SecretRef"},
    "SecretRef": dict.fromkeys(["name", "optional"]),
    "Lifecycle": {"preStop": "Handler", "postStart": "Handler"},
    "Handler": {"exec": "Exec", "httpGet": None},
    "Exec": {"command": None},
    "Port": dict.fromkeys("containerPort hostPort name protocol".split()),
    "Resources": {"claims": None, "limits": "Amounts", "requests": "Amounts"},
    "Amounts": dict.fromkeys("cpu memory nvidia.com/gpu ephemeral-storage".split()),
    "Mount": dict.fromkeys("mountPath mountPropagation name readOnly subPath".split()),
}  # fmt: skip


def check_as_google(value: Any, kind: dict[str, Any]) -> None:
    """Refuses what is not in the description of Google's Compute API."""
    if "$ref" in kind:
        kind = GOOGLE[kind["$ref"]]
    if kind["type"] == "object":
        for name, inner in value.items():
            check_as_google(inner, kind["properties"][name])
    elif kind["type"] == "array":
        for item in value:
            check_as_google(item, kind["items"])
    elif "enum" in kind and value not in kind["enum"]:
        raise ValueError(f"{value}: expected one of {kind['enum']}")
    elif not isinstance(value, {"string": (str, int), "boolean": bool, "integer": int}[kind["type"]]):
        raise ValueError(f"{value}: expected {kind['type']}")


def check_as_ray_up(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` makes of a config before it reaches for machines; raises what `ray up` and Google raise."""
    if config.get("provider", {}).get("type") == "gcp":
        assert set(config["provider"]) == {"type", "region", "availability_zone", "project_id"}
        for node_type in config.get("available_node_types", {}).values():
            get_node_type(node_type["node_config"])
            check_as_google(node_type["node_config"], GOOGLE["Instance"])
            assert set(node_type["resources"]) == {"CPU", "GPU"}
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def check_names(value: Any, kind: Any, where: str = "") -> None:
    """Refuses fields that KubeRay's or Kubernetes' API does not have; theirs would be left out or refused there,
    too."""
    if isinstance(kind, list):
        for number, item in enumerate(value):
            check_names(item, kind[0], f"{where}[{number}]")
    elif kind is not None:
        if unknown := set(value) - set(KUBERAY[kind]):
            raise ValueError(f"{where or kind}: no field {unknown}")
        for name, inner in value.items():
            check_names(inner, KUBERAY[kind][name], f"{where}.{name}")


def check_rayjob(job: dict[str, Any]) -> dict[str, Any]:
    """The config that Ray's autoscaler derives from the job's cluster."""
    check_names(job, "RayJob")
    cluster = {
        "metadata": {"name": job["metadata"]["name"], "namespace": "default"},
        "spec": job["spec"]["rayClusterSpec"],
    }
    return _derive_autoscaling_config_from_ray_cr(cluster)


def read_rayjob() -> dict[str, Any]:
    *_, job = yaml.safe_load_all(RAYJOB.read_text())
    return job


def list_renamed(config: Any, kind: Any = None, known: bool = False) -> Iterator[tuple[str, Any]]:
    """Copies of a config with one field renamed each, and which. With `known` only fields that KUBERAY tells."""

    def walk(value: Any, path: tuple[Any, ...], kind: Any) -> Iterator[tuple[Any, ...]]:
        if isinstance(value, list):
            for number, item in enumerate(value):
                yield from walk(item, (*path, number), kind[0] if isinstance(kind, list) else None)
        elif isinstance(value, dict) and (kind or not known):
            for name, inner in value.items():
                yield (*path, name)
                yield from walk(inner, (*path, name), KUBERAY[kind][name] if known else None)

    for path in walk(config, (), kind):
        renamed = copy.deepcopy(config)
        place = renamed
        for step in path[:-1]:
            place = place[step]
        place[f"{path[-1]}s"] = place.pop(path[-1])
        yield ".".join(map(str, path)), renamed


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_ray_up_accepts_the_file_and_no_renamed_field_of_it(name):
    """Free are only names that nobody but this file gives: of node types, labels, remote paths."""
    config = yaml.safe_load(CLUSTER_FILES[name].read_text())
    prepared = check_as_ray_up(config)
    assert prepared["head_node_type"] in prepared["available_node_types"]
    free = r"file_mounts\.|available_node_types\.\w+$|available_node_types\.\w+\.labels\."
    accepted = []
    for path, renamed in list_renamed(config):
        try:
            check_as_ray_up(renamed)
        except (jsonschema.ValidationError, ValueError, KeyError, AssertionError, SystemExit, RuntimeError):
            continue
        except BaseException as error:  # click's, by which `ray up` ends
            if type(error).__module__.partition(".")[0] not in ("click", "ray"):
                raise
            continue
        accepted.append(path)
    assert [path for path in accepted if not re.match(free, path)] == []
    assert len(accepted) < len(list(list_renamed(config))) / 4


def schedule(wanted: int, monitor: CloudResourceMonitor) -> dict[str, int]:
    """The machines that Ray's autoscaler would start for so many folds of one GPU."""
    config = check_as_ray_up(yaml.safe_load(CLUSTER_FILES["cluster.yaml"].read_text()))
    types = {
        name: NodeTypeConfig(
            name, kind["min_workers"], kind["max_workers"] + (name == "head"), priority=kind.get("priority", 0),
            resources=kind["resources"], labels=kind["labels"],
        )
        for name, kind in config["available_node_types"].items()
    }  # fmt: skip
    requests = ResourceRequestUtil.group_by_count(
        [ResourceRequestUtil.make({"CPU": 8, "GPU": 1}) for _ in range(wanted)]
    )
    reply = ResourceDemandScheduler(None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=types,
            max_num_nodes=config["max_workers"] + 1,
            resource_requests=requests,
            cloud_resource_availabilities=monitor.get_resource_availabilities(),
            recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_the_autoscaler_prefers_spot_and_gives_the_third_fold_an_on_demand_machine():
    """As the comments in cluster.yaml say; what they say of refusals, too: Ray takes no notice of them."""
    assert schedule(1, CloudResourceMonitor()) == {"gpu_spot": 1}
    assert schedule(3, CloudResourceMonitor()) == {"gpu_spot": 2, "gpu_on_demand": 1}
    assert sum(schedule(9, CloudResourceMonitor()).values()) == 3
    refused = CloudResourceMonitor()
    refused.notify([InstanceUpdateEvent(instance_type="gpu_spot", new_instance_status=Instance.ALLOCATION_FAILED)])
    assert schedule(1, refused) == {"gpu_spot": 1}
    did_not_come_up = CloudResourceMonitor()
    did_not_come_up.notify(
        [InstanceUpdateEvent(instance_type="gpu_spot", new_instance_status=Instance.ALLOCATION_TIMEOUT)]
    )
    assert schedule(1, did_not_come_up) == {"gpu_on_demand": 1}


def test_a_run_on_the_cloud_cluster_waits_for_a_gpu_machine_for_each_fold():
    types = parse_startable(CLUSTER_FILES["cluster.yaml"].read_text())
    head = Resources(0, 0, 16e9)
    placement = place_folds(ResourcesConfig(gpus_per_fold=1), ClusterResources(0, 0, (head,), types), 3)
    assert (placement.folds_at_once, placement.gpus_per_worker, placement.cpus_per_worker) == (3, 1, 8)
    assert placement.waits_for == "a node with 8 CPU and 1 GPU"


def test_rays_autoscaler_understands_the_rayjob_and_no_renamed_field_of_it():
    config = check_rayjob(read_rayjob())
    assert config["available_node_types"]["headgroup"]["resources"] == {"CPU": 0, "GPU": 0, "memory": 16 * 2**30}
    gpu = config["available_node_types"]["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 3)
    assert (gpu["resources"]["CPU"], gpu["resources"]["GPU"]) == (8, 1)
    renamed = list(list_renamed(read_rayjob(), "RayJob", known=True))
    assert len(renamed) > 80
    for _, job in renamed:
        with pytest.raises((ValueError, KeyError)):
            check_rayjob(job)


def test_the_rayjobs_driver_knows_which_pods_it_may_have():
    """KubeRay does not tell it: the head's own pod has nothing to train on, and folds have to wait for others."""
    known, job = yaml.safe_load_all(RAYJOB.read_text())
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (volume,) = [one["name"] for one in head["volumes"] if one.get("configMap") == {"name": known["metadata"]["name"]}]
    (mount,) = [one for one in head["containers"][0]["volumeMounts"] if one["name"] == volume]
    assert mount["mountPath"] == "/home/ray/ray_bootstrap_config.yaml"  # where the driver looks: ~
    startable = parse_startable(known["data"][mount["subPath"]])
    gpu = check_rayjob(job)["available_node_types"]["gpu"]
    assert [node[:2] for node in startable] == [(gpu["resources"]["CPU"], gpu["resources"]["GPU"])] * gpu["max_workers"]
    words = shlex.split(job["spec"]["entrypoint"])[2:]
    resources = ClusterResources(0, 0, (Resources(0, 0, 16e9),), startable)
    placement = place_folds(parse_kfold(words).config.resources, resources, 5)
    assert (placement.folds_at_once, placement.gpus_per_worker) == (3, 1)
    assert placement.waits_for == "a node with 8 CPU and 1 GPU"


def test_the_rayjob_mounts_one_shared_volume_in_every_pod_and_names_its_claim():
    claim, helper = yaml.safe_load_all(VOLUME.read_text())
    job = read_rayjob()
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    check_names(helper, "Pod")
    for _, renamed in list_renamed(helper, "Pod", known=True):
        with pytest.raises(ValueError, match="no field"):
            check_names(renamed, "Pod")
    cluster = job["spec"]["rayClusterSpec"]
    words = dict(word.split("=") for word in shlex.split(job["spec"]["entrypoint"])[2:])
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for pod in (helper["spec"], *pods):
        (volume,) = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]]
        assert all(words[field].startswith(mount["mountPath"] + "/") for field in ("run.storage", "data.root"))
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert cluster["authOptions"]["mode"] == "token"


def test_all_forms_agree_on_versions_ports_token_and_stop_time():
    pins = dict(re.findall(r"^([a-z0-9_-]+)==([^ ;]+)", (REPOSITORY / "requirements.txt").read_text(), re.M))
    job, dockerfile = read_rayjob(), (DEPLOY / "Dockerfile").read_text()
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pins["ray"]
    assert f"ARG DEVICE=gpu\nFROM rayproject/ray:{pins['ray']}-py311-${{DEVICE}}\n" in dockerfile
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.M) for name in line.split()]
    assert all((REPOSITORY / name).exists() for name in copied)
    # What the wheel's description and the links of ray_jobs/deploy need is there, too.
    assert {"requirements.txt", "cluster.yaml", "README.md", "LICENSE", "trainers", "ensemble", "ray_jobs"} < set(
        copied
    )
    assert 'ENTRYPOINT ["kfold"]' in dockerfile
    assert "--require-hashes --requirement requirements.txt" in dockerfile
    images = set(re.findall(r"image: (\S+)", RAYJOB.read_text()))
    assert len(images) == 1
    assert images.pop() in dockerfile
    (stop_time,) = [one["value"] for one in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]]
    for path in CLUSTER_FILES.values():
        config = yaml.safe_load(path.read_text())
        (head,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
        (worker,) = [command for command in config["worker_start_ray_commands"] if "ray start" in command]
        assert f"export RAY_AUTH_MODE=token RAY_JOB_STOP_WAIT_TIME_S={stop_time}; " in head
        assert "--port=6379 --dashboard-host=127.0.0.1 --dashboard-port=8265 " in head
        assert worker.startswith("export RAY_AUTH_MODE=token; ")
        assert "--address=$RAY_HEAD_IP:6379" in worker
        assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
        assert all((REPOSITORY / local).is_file() for local in config["file_mounts"].values() if local[0] != "~")
        assert any("--require-hashes -r ~/requirements.txt" in command for command in config["setup_commands"])
    first, second = [yaml.safe_load(path.read_text())["setup_commands"] for path in CLUSTER_FILES.values()]
    assert first == second
    # The same uv and Python on SkyPilot's machine.
    setup = yaml.safe_load(SKY.read_text())["setup"]
    assert all(
        re.search(pattern, "\n".join(first))[0] in setup for pattern in (r"https://astral\S+", r"--python [\d.]+")
    )


# The fields that sky.yaml may have, by SkyPilot 0.14's schema of a task (sky/utils/schemas.py).
SKY_FIELDS = {
    None: "name workdir num_nodes resources file_mounts service pool setup run envs secrets volumes config".split(),
    "resources": (
        "accelerators cpus memory disk_size disk_tier use_spot job_recovery infra image_id instance_type ports labels "
        "network_tier any_of ordered autostop priority"
    ).split(),
    "job_recovery": "strategy max_restarts_on_errors recover_on_exit_codes".split(),
}


def test_the_task_of_skypilot_has_its_fields_and_runs_a_command_that_goes_on_from_a_bucket():
    task = yaml.safe_load(SKY.read_text())
    parts = {None: task, "resources": task["resources"], "job_recovery": task["resources"]["job_recovery"]}
    assert [field for name, part in parts.items() for field in part if field not in SKY_FIELDS[name]] == []
    assert all(isinstance(value, str) for value in task["envs"].values())
    assert set(task["secrets"].values()) == {None}
    assert (REPOSITORY / "requirements.txt").is_file()
    assert "--require-hashes -r requirements.txt" in task["setup"]
    (command,) = re.findall(r"python ray_jobs/kfold.py (.*)", task["run"].replace("\\\n", " "))
    for name, value in task["envs"].items():
        command = command.replace(f"${name}", value)
    config = parse_kfold(shlex.split(command)).config
    # Not `auto`: the run that another machine goes on with has the same name.
    assert config.run.name == "auctions"
    assert config.run.storage.startswith("s3://")
    assert config.trainer.data.root.startswith("s3://")


def list_commands() -> list[list[str]]:
    """The words after `kfold.py` of every command that these files tell people to type, and of the RayJob."""
    commands = [shlex.split(read_rayjob()["spec"]["entrypoint"])]
    for path in (*CLUSTER_FILES.values(), PAGE):
        text = re.sub(r"\\\n#? *", "", path.read_text())
        commands += [
            shlex.split(line, comments=True)
            for line in re.findall(r"ray job submit .*? -- (python ray_jobs/kfold.py .*)", text)
        ]
    return [words[2:] for words in commands]


def test_every_command_is_understood_and_the_rayjobs_plan_is_made(tmp_path, small_frame, write_data, capsys):
    commands = list_commands()
    assert len(commands) >= 4
    for words in commands:
        config = parse_kfold(words).config
        assert Path(config.run.storage).is_absolute()
        assert config.trainer.data.root
    words = [word for word in commands[0] if not word.startswith(("run.storage=", "data.root="))]
    assert main([*words, f"run.storage={tmp_path}", f"data.root={write_data(small_frame)}", "--dry-run"]) == 0
    assert "dry run: nothing was launched" in capsys.readouterr().out
