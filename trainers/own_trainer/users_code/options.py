"""The own options of a function: the dataclass that annotates its second argument, or names and values."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from trainers.values import suggest

_PLAIN = (bool, int, float, str, type(None))


class _Options:
    """Options of which only names and values are known."""

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


def as_options(values: Mapping[str, Any]) -> Any:
    """An object whose attributes (and items) are these values.

    Raises:
        ValueError: a name is no name, or a value cannot stand in a config.
    """
    for name, value in values.items():
        if not name.isidentifier() or name.startswith("_"):
            raise ValueError(f"my: {name!r} is no name of an option: expected a word such as depth")
        _refuse_odd_value(name, value)
    kept = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    fields = [(name, _find_type(value), dataclasses.field(default=value)) for name, value in kept.items()]
    return dataclasses.make_dataclass("Options", fields, bases=(_Options,), frozen=True)()


def find_options(function: Callable[..., Any]) -> type[Any] | None:
    """The dataclass of a function's second argument; None: it takes none, or does not say which.

    Raises:
        ValueError: the annotation is something else, or a field has no default.
    """
    if count_arguments(function) < 2:
        return None
    called: Any = function if inspect.isfunction(function) else type(function).__call__
    second = list(inspect.signature(function).parameters.values())[1]
    name, hint = second.name, second.annotation
    if isinstance(hint, str):  # the other annotations may name what is not there
        try:
            hint = eval(hint, called.__globals__)
        except NameError:
            raise ValueError(f"the second argument, {name}, is annotated with {hint}, which is not defined") from None
    if hint in (inspect.Parameter.empty, dict, Any, Mapping):
        return None
    if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
        raise ValueError(f"the second argument, {name}, is annotated with {hint}: expected a dataclass of own options")
    for one in dataclasses.fields(hint):
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise ValueError(f"{hint.__name__}.{one.name} has no default: give each option one, as {one.name}: int = 8")
    for name, value in dataclasses.asdict(hint()).items():
        _refuse_odd_value(name, value)
    return hint


def build_options(kind: type[Any] | None, values: Mapping[str, Any] | Any) -> Any:
    """A function's options with these values.

    Args:
        kind: their dataclass; None: the function does not say which.
        values: by name, or an object of the dataclass itself.

    Raises:
        ValueError: an option is unknown, or a value cannot stand in a config.
    """
    is_object = dataclasses.is_dataclass(values) and not isinstance(values, type)
    given: Mapping[str, Any] = dataclasses.asdict(values) if is_object else values  # type: ignore[arg-type]
    if kind is None:
        return as_options(given)
    known = [one.name for one in dataclasses.fields(kind)]
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"my.{name}: {kind.__name__} has no such option{suggest(name, known)}; it has {', '.join(known)}"
            )
        _refuse_odd_value(name, value)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def count_arguments(function: Callable[..., Any]) -> int:
    """How many arguments a function is given: 1 (the fold) or 2 (its options, too).

    Raises:
        ValueError: it takes none, or wants more.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [one for one in inspect.signature(function).parameters.values() if one.kind in kinds]
    wanted = [one for one in parameters if one.default is inspect.Parameter.empty]
    if not parameters or len(wanted) > 2:
        shown = f"{getattr(function, '__name__', 'the function')}{inspect.signature(function)}"
        raise ValueError(f"{shown}: expected a function of a fold, or of a fold and its own options")
    return min(len(parameters), 2)


def _refuse_odd_value(name: str, value: Any) -> None:
    values = value if isinstance(value, (list, tuple)) else [value]
    for one in values:
        if not isinstance(one, _PLAIN):
            raise ValueError(
                f"my.{name} is a {type(one).__name__}: options stand in the run's config, so they are numbers, texts, "
                "true or false, None, and lists of these"
            )


def _find_type(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple[type(value[0]) if value else str, ...]  # type: ignore[misc]
    return Any if value is None else type(value)
