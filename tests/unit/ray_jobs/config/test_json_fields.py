"""Dataclasses as JSON: what comes back, what older files lack, what stands beside the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pytest

from ray_jobs.config.json_fields import IF_ANY, INLINE, from_json, to_json


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Part:
    size: int
    colour: Colour = Colour.RED
    pair: tuple[float, int] | None = None


@dataclass(frozen=True)
class Whole:
    name: str
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] | None = field(default=None, metadata=IF_ANY)
    kind: Literal["a", "b"] = "a"
    facts: Mapping[str, Any] = field(default_factory=dict, metadata=INLINE)


def test_what_was_written_comes_back_with_its_types():
    whole = Whole("x", (Part(1, pair=(0.5, 2)), Part(0)), {"p": Part(3)}, "b", {"score": None, "more": [1]})
    text = json.dumps(to_json(whole))
    assert from_json(Whole, json.loads(text)) == whole
    assert list(json.loads(text)) == ["name", "parts", "by_name", "kind", "score", "more"]
    assert isinstance(from_json(Whole, json.loads(text)).parts[0].colour, Colour)


def test_a_field_that_a_file_lacks_has_its_default_and_one_that_is_not_known_is_passed_over():
    assert from_json(Part, {"size": 2, "weight": 9}) == Part(2)
    assert "by_name" not in to_json(Whole("x"))
    with pytest.raises(TypeError, match="size"):
        from_json(Part, {})


def test_a_config_refuses_what_it_does_not_know_or_allow():
    with pytest.raises(ValueError, match="Part has no field 'weight': expected some of size, colour, pair"):
        from_json(Part, {"size": 2, "weight": 9}, takes_unknown=False)
    with pytest.raises(ValueError, match="Part has no field 'weight'"):
        from_json(Whole, {"name": "x", "parts": [{"size": 2, "weight": 9}]}, takes_unknown=False)
    with pytest.raises(ValueError, match="kind=c: expected one of a, b"):
        from_json(Whole, {"name": "x", "kind": "c"})
    with pytest.raises(ValueError, match="green"):
        from_json(Part, {"size": 1, "colour": "green"})
