"""Modules that stand for Ray, W&B and the report before the product is imported. To be imported first, in a process of
its own: the real Ray takes seconds to load, and nothing here may call it."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any


class _Ray(ModuleType):
    """`ray`: its calls go to the cluster of the process that makes them."""

    find_cluster: Any = None
    world: Any = None

    def remote(self, *given: Any, **options: Any) -> Any:
        return self.find_cluster().remote(*given, **options)

    def get_actor(self, name: str, namespace: str) -> Any:
        return self.find_cluster().get_actor(name, namespace)

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        return self.find_cluster().get(reference, timeout)

    def get_gpu_ids(self) -> list[int]:
        return []

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: self.world.current.process.machine)


class RayError(Exception):
    """Of Ray."""


class WorkerCrashedError(RayError):
    """A task's process is gone."""


class ActorDiedError(RayError):
    """An actor is gone for good."""


class TaskCancelledError(RayError):
    """A task was cancelled."""


class GetTimeoutError(RayError):
    """What a call gives was not there in time."""


class _Wandb(ModuleType):
    """`wandb`: the client of the simulated world."""

    client: Any = None

    def init(self, **given: Any) -> Any:
        return self.client.init(**given)

    def login(self, **given: Any) -> Any:
        return self.client.login(**given)

    def Api(self, timeout: float) -> Any:  # noqa: N802
        return self.client.Api(timeout)


class WandbError(Exception):
    """Of W&B's client."""


class _WandbRecord:
    """A record of a `.wandb` file: the step of a row."""

    def __init__(self, step: int) -> None:
        self.history = SimpleNamespace(step=SimpleNamespace(num=step))

    @staticmethod
    def FromString(content: bytes) -> _WandbRecord:  # noqa: N802
        return _WandbRecord(json.loads(content)["history"])

    def HasField(self, name: str) -> bool:  # noqa: N802
        return name == "history"


def _make(name: str, **values: Any) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = []
    for one, value in values.items():
        setattr(module, one, value)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
    return module


RAY = _Ray("ray")
RAY.__path__ = []
sys.modules["ray"] = RAY
_ERRORS = (RayError, WorkerCrashedError, ActorDiedError, TaskCancelledError, GetTimeoutError)
_make("ray.exceptions", **{error.__name__: error for error in _ERRORS})
_make("ray.util", get_node_ip_address=lambda: "10.0.0.1")
_make("ray.util.scheduling_strategies", NodeAffinitySchedulingStrategy=lambda node, soft: node)
_ALONE = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
_make("ray.train", get_context=lambda: _ALONE, report=lambda metrics: None)
_make("ray.train.torch", get_device=lambda: "cpu")
_make("ray.tune")
_make("ray_report", write_report_or_warn=lambda folder, config, summary: None)
REPORT = sys.modules.pop("ray_report")
WANDB = _Wandb("wandb")
WANDB.__path__ = []
WANDB.Error, WANDB.Settings, WANDB.Run = WandbError, SimpleNamespace, SimpleNamespace  # type: ignore[attr-defined]
WANDB.Table = lambda columns, data: {"columns": columns, "data": data}  # type: ignore[attr-defined]
sys.modules["wandb"] = WANDB
_make("wandb.proto")
_make("wandb.proto.wandb_internal_pb2", Record=_WandbRecord)
