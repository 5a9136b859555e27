"""GPT-2's weights in Hugging Face form as those of this family's model, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trainers.gpt_pretraining.network.model import Gpt
from trainers.interface import DataError

# Of a block: our name, theirs, and whether theirs is transposed (a Conv1D).
_OF_BLOCK = {
    "norm1": ("ln_1", False),
    "attention.qkv": ("attn.c_attn", True),
    "attention.out": ("attn.c_proj", True),
    "norm2": ("ln_2", False),
    "up": ("mlp.c_fc", True),
    "down": ("mlp.c_proj", True),
}


def load_pretrained(model: Gpt, folder: str) -> None:
    """Gives a model the weights of a folder.

    Raises:
        DataError: the folder holds no such model, or one of another size.
    """
    from safetensors.torch import load_file

    place = Path(os.path.expanduser(folder))
    try:
        theirs = load_file(place / "model.safetensors")
        said = json.loads((place / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"model.pretrained={folder}: expected model.safetensors and config.json ({error!s:.200})"
        ) from None
    _check_sizes(model, said, folder)
    try:
        model.load_state_dict(from_hugging_face(theirs, model))
    except (KeyError, RuntimeError) as error:
        raise DataError(f"model.pretrained={folder}: these are no weights of a GPT-2: {error!s:.300}") from None


def _check_sizes(model: Gpt, said: Mapping[str, Any], folder: str) -> None:
    own = model.config
    wanted = {
        "n_embd": ("model.width", own.width),
        "n_layer": ("model.layers", own.layers),
        "n_head": ("model.heads", own.heads),
        "n_positions": ("model.context", own.context),
        "vocab_size": ("tokens of the tokenizer", model.vocabulary),
    }
    for name, (field, value) in wanted.items():
        if said.get(name) != value:
            raise DataError(f"model.pretrained={folder} has {name}={said.get(name)}: expected {value}, as {field} says")
    if not own.bias or (own.gelu == "tanh") != (said.get("activation_function", "gelu_new") == "gelu_new"):
        raise DataError(
            f"model.pretrained={folder} has biases and activation_function={said.get('activation_function')}: expected "
            f"what model.bias={str(own.bias).lower()} and model.gelu={own.gelu} say"
        )


def from_hugging_face(theirs: Mapping[str, Tensor], model: Gpt) -> dict[str, Tensor]:
    """Their weights by our names."""
    bare = {name.removeprefix("transformer."): value for name, value in theirs.items()}
    tokens = model.state_dict()["tokens.weight"].clone()
    tokens[: len(bare["wte.weight"])] = bare["wte.weight"]
    ours = {"tokens.weight": tokens, "positions.weight": bare["wpe.weight"]}
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = bare[f"ln_f.{kind}"]
        for number in range(model.config.layers):
            for own, (name, is_transposed) in _OF_BLOCK.items():
                value = bare[f"h.{number}.{name}.{kind}"]
                ours[f"blocks.{number}.{own}.{kind}"] = value.t() if is_transposed and kind == "weight" else value
    return {name: value.contiguous() for name, value in ours.items()}
