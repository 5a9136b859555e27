"""Dataclasses as JSON, by their annotations: what the files of a run hold."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, TypeVar

from trainers.values import check_choice

Record = TypeVar("Record")
_read_hints = functools.cache(typing.get_type_hints)  # it compiles each annotation

# Metadata of a field. The file lacks it where it is None:
IF_ANY = {"if_any": True}
# The file holds it beside the others, not below its name: a dataclass, or a mapping of all that is left.
INLINE = {"inline": True}


def from_json(cls: type[Record], values: Mapping[str, Any], *, takes_unknown: bool = True) -> Record:
    """A dataclass from JSON: lists become tuples, mappings and words what the annotations say.

    Args:
        cls: the dataclass; a field that the file does not have gets its default.
        values: from the file.
        takes_unknown: whether fields that another version has written are passed over.

    Raises:
        ValueError: a field is unknown or has a value that is not allowed.
        TypeError: a field that has no default is missing.
    """
    hints = _read_hints(cls)  # type: ignore[arg-type]
    own = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = {name: value for name, value in values.items() if name not in own}
    if unknown and not takes_unknown:
        raise ValueError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}: expected some of {', '.join(own)}")
    built = {}
    for name, field in own.items():
        if field.metadata.get("inline"):
            built[name] = _convert(hints[name], unknown, takes_unknown)
        elif name in values:
            if typing.get_origin(hints[name]) is Literal:
                check_choice(name, values[name], typing.get_args(hints[name]))
            built[name] = _convert(hints[name], values[name], takes_unknown)
    return cls(**built)


def to_json(value: Any) -> Any:
    """What `from_json` reads, in the order of the fields."""
    if dataclasses.is_dataclass(value):
        found: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            own = getattr(value, field.name)
            if field.metadata.get("inline"):
                found |= to_json(own)
            elif own is not None or not field.metadata.get("if_any"):
                found[field.name] = to_json(own)
        return found
    if isinstance(value, Mapping):
        return {name: to_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(one) for one in value]
    return value.value if isinstance(value, Enum) else value


@functools.cache
def _may_change(hint: Any) -> bool:
    """Whether a value of JSON may become another by this annotation."""
    if options := typing.get_args(hint):
        return typing.get_origin(hint) is tuple or any(map(_may_change, options))
    return dataclasses.is_dataclass(hint) or (isinstance(hint, type) and issubclass(hint, Enum))


def _convert(hint: Any, value: Any, takes_unknown: bool) -> Any:
    """A value of JSON as its annotation says; what no annotation changes stays as it is."""
    if not _may_change(hint):
        return value
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    convert = functools.partial(_convert, takes_unknown=takes_unknown)
    if origin in (types.UnionType, typing.Union):
        return next((one for one in (convert(option, value) for option in options) if one is not value), value)
    if isinstance(value, Mapping):
        if dataclasses.is_dataclass(hint):
            return from_json(typing.cast(type[Any], hint), value, takes_unknown=takes_unknown)
        return {name: convert(options[1], one) for name, one in value.items()} if options else value
    if isinstance(value, list) and origin is tuple:
        kinds = options[:1] * len(value) if options[1:] == (...,) else options
        return tuple(map(convert, kinds, value)) if len(kinds) == len(value) else tuple(value)
    if value is not None and isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    return value
