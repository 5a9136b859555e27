"""A user's function: found by its name, known by its source, and packed so that it runs where its file is not.

It travels by value (cloudpickle), and so do the modules that lie beside its file. What is packed is code: whoever reads
it runs it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import pickle
import re
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cloudpickle

from trainers.interface import DataError
from trainers.own_trainer.example import train_fold as example
from trainers.own_trainer.users_code.options import build_options, find_options

PACKED = ".trainer"
_OWN = Path(__file__).resolve().parents[3]
_STANDARD = sysconfig.get_paths()["stdlib"]
_NOT_OF_USER = (
    *(f"{_OWN / name}/" for name in ("ray_jobs", "trainers", "ensemble")),
    *(f"{folder}/" for folder in {_STANDARD, os.path.realpath(_STANDARD)}),
    "<",
)
_FORM = "expected FILE.py:NAME or package.module:NAME, such as my_model.py:train_fold"


@dataclass(frozen=True)
class Source:
    """A trainer.

    Attributes:
        name: for people: its file and its own name.
        function: takes a fold, and its own options if it wants them.
        text: its source, and that of what it calls of the user's own.
        options_class: of its own options; None: it does not say.
        options: then their values by name.
    """

    name: str
    function: Callable[..., Any]
    text: str
    options_class: type[Any] | None = None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def default_options(self) -> Any:
        """The function's options as they are if nothing is said."""
        return self.build_options(dict(self.options) if self.options_class is None else {})

    def build_options(self, values: Any) -> Any:
        """The function's options with these values, or as those of an object of the dataclass.

        Raises:
            ValueError: an option is unknown, or a value cannot stand in a config.
        """
        return build_options(self.options_class, values)

    def pack(self) -> bytes:
        """The trainer by value."""
        try:
            with packed_by_value(self.function):
                return bytes(cloudpickle.dumps({one.name: getattr(self, one.name) for one in fields(self)}))
        except Exception as error:  # cloudpickle and what it meets raise what they like
            raise DataError(
                f"{self.name} cannot be sent to the workers: {type(error).__name__}: {error}. It uses something that "
                "cannot be pickled, such as an open file, a lock or a connection: make it inside the function"
            ) from None


def load_source(path: str | None) -> Source:
    """The trainer that `trainer.path` names.

    Raises:
        DataError: there is none, or its file cannot be run.
    """
    if path is None:
        return make_source(example, "the example")
    if path.endswith(PACKED):
        return unpack(Path(path))
    place, _, name = path.rpartition(":")
    if not place or not name:
        raise DataError(f"trainer.path={path}: {_FORM}")
    module = _run_file(Path(place).expanduser()) if place.endswith(".py") else _import(place)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and _is_of(value, module)]
        raise DataError(f"trainer.path={path}: {place} has no {name!r}; its functions: {', '.join(own) or 'none'}")
    return make_source(found, f"{Path(place).name}:{name}")


def make_source(trainer: Any, name: str) -> Source:
    """A trainer from a function, or from an estimator with fit and predict.

    Raises:
        DataError: it is neither, or its arguments are not those of a trainer.
    """
    from trainers.own_trainer.estimator import EstimatorTrainer, describe_estimator, is_estimator

    options: tuple[tuple[str, Any], ...] = ()
    if isinstance(trainer, type) and hasattr(trainer, "fit"):
        raise DataError(f"{name} is a class: give an estimator of it, {trainer.__name__}()")
    if is_estimator(trainer):
        trainer = EstimatorTrainer(trainer)
    if isinstance(trainer, EstimatorTrainer):
        options = (("estimator", describe_estimator(trainer.estimator)), ("features", tuple(trainer.features)))
    elif not callable(trainer):
        raise DataError(f"{name} is a {type(trainer).__name__}: expected a function of a fold, or an estimator")
    try:
        kind = find_options(trainer)
    except (ValueError, TypeError, NameError) as error:
        raise DataError(f"{name}: {error}") from None
    text = describe_estimator(trainer.estimator) if isinstance(trainer, EstimatorTrainer) else collect_source(trainer)
    return Source(name, trainer, text, kind, options)


def unpack(path: Path) -> Source:
    """A trainer that `Source.pack` has packed. This runs its code.

    Raises:
        DataError: it is not there, or needs something that this machine does not have.
    """
    try:
        return Source(**pickle.loads(path.read_bytes()))
    except FileNotFoundError:
        raise DataError(f"{path}: no such packed function; give the function itself") from None
    except (ImportError, AttributeError) as error:
        raise DataError(f"{path} needs what is not installed here: {error}. Install it on every machine") from None


def collect_source(function: Callable[..., Any]) -> str:
    """The source of a function and of the user's own functions and classes that it calls, directly or not, and the
    numbers and texts that they find outside of themselves."""
    seen: dict[str, str] = {}
    constants: dict[str, str] = {}
    waiting: list[Any] = [function]
    while waiting:
        one = waiting.pop()
        key = f"{getattr(one, '__module__', '')}.{getattr(one, '__qualname__', type(one).__qualname__)}"
        if key in seen:
            continue
        seen[key] = _read_source(one)
        parts = [value for value in vars(one).values() if inspect.isfunction(value)] if isinstance(one, type) else [one]
        for part in parts:
            if inspect.isfunction(part):
                used = _list_used(part)
                waiting += [value for value in used.values() if _is_own(value)]
                constants |= {name: f"{name} = {value!r}" for name, value in used.items() if _is_plain(value)}
    first = seen.pop(next(iter(seen)))
    return "\n".join([first, *(text for _, text in sorted((constants | seen).items()))])


def _read_source(one: Any) -> str:
    try:
        return inspect.getsource(one)
    except (OSError, TypeError):  # typed into a shell, or no function
        code = getattr(one, "__code__", None)
        shown = re.sub(r" at 0x[0-9a-f]+", "", repr(one))
        return shown if code is None else f"{shown} {code.co_code.hex()} {code.co_names} {code.co_varnames}"


def _list_used(function: Any) -> dict[str, Any]:
    """What a function finds outside of itself, by name: of its module, of what it closes over, and of modules of the
    user's."""
    names, waiting = set[str](), [function.__code__]
    while waiting:
        code = waiting.pop()
        names |= set(code.co_names)
        waiting += [one for one in code.co_consts if isinstance(one, types.CodeType)]
    found = {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not filled yet
            found[name] = cell.cell_contents
    for one in list(found.values()):
        if isinstance(one, types.ModuleType) and _is_of_user(one):
            found |= {f"{one.__name__}.{name}": value for name, value in vars(one).items() if name in names}
    return found


def _is_plain(value: Any) -> bool:
    """Whether something is a number or a text, or a collection of such."""
    if isinstance(value, dict):
        return all(_is_plain(one) for item in value.items() for one in item)
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _is_own(value: Any) -> bool:
    """Whether something is a function or a class that the user has written."""
    if not (inspect.isfunction(value) or isinstance(value, type)):
        return False
    module = sys.modules.get(value.__module__)
    return module is not None and (value.__module__ == "__main__" or _is_of_user(module))


def _is_of(value: Any, module: types.ModuleType) -> bool:
    return bool(value.__module__ == module.__name__)


def _is_of_user(module: types.ModuleType) -> bool:
    """Whether a module is a file of the user's: neither of Python, nor of a package that is installed, nor of this
    project."""
    return is_user_file(getattr(module, "__file__", None) or "")


def is_user_file(file: str) -> bool:
    """Whether a file of code is the user's: see `_is_of_user`. Asked of thousands of modules, so only names are looked
    at."""
    is_installed = "/site-packages/" in file or "/dist-packages/" in file
    return file.endswith(".py") and not is_installed and not file.startswith(_NOT_OF_USER)


@contextlib.contextmanager
def packed_by_value(function: Any) -> Iterator[None]:
    """Within it what the user has written is packed as it is, and not by its name."""
    own = [one for name, one in list(sys.modules.items()) if name != "__main__" and _is_of_user(one)]
    known = cloudpickle.list_registry_pickle_by_value()
    new = [module for module in own if module.__name__ not in known]
    for module in new:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in new:
            cloudpickle.unregister_pickle_by_value(module)


def _import(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(f"trainer.path: {name} cannot be imported: {error}; {_FORM}") from None


def _run_file(path: Path) -> types.ModuleType:
    """Runs a file as a module, with its own folder among those that are searched for modules."""
    path = path.resolve()
    if not path.is_file():
        raise DataError(f"trainer.path: no such file {path}; {_FORM}")
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    name = path.stem if known is None else f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise DataError(f"{path} cannot be run: {type(error).__name__}: {error}{_find_line(error, path)}") from None
    finally:
        sys.path.remove(str(path.parent))
    return module


def _find_line(error: BaseException, path: Path) -> str:
    import traceback

    lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""
