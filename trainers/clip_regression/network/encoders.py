"""open_clip's encoders: built from a name or a checkpoint's description, with published, own or random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from trainers.clip_regression.config import ModelConfig
from trainers.clip_regression.network.clip_library import open_clip
from trainers.interface import DataError

if TYPE_CHECKING:
    from trainers.clip_regression.network.model import Clip

_SEED_OF_RANDOM_FROZEN = 0
open_clip.add_model_config(Path(__file__).parents[1] / "model_configs")


def describe_architecture(model: ModelConfig) -> dict[str, Any]:
    """What is needed to build the encoders again without open_clip's registry: its own config as a dict."""
    architecture: dict[str, Any] = open_clip.get_model_config(model.clip)
    tag = open_clip.get_pretrained_cfg(model.clip, model.pretrained) if model.pretrained else {}
    quick_gelu = tag.get("quick_gelu", False) if model.quick_gelu is None else model.quick_gelu
    if quick_gelu:  # OpenAI's weights were trained with it; the plain config names do not say so
        architecture["quick_gelu"] = True
    return architecture


def build_clip(architecture: dict[str, Any]) -> Clip:
    """The encoders with random weights."""
    config = {name: dict(value) if isinstance(value, dict) else value for name, value in architecture.items()}
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    clip: Clip = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    return clip


def load_clip(model: ModelConfig) -> tuple[Clip, dict[str, Any]]:
    """The encoders with the weights that the config asks for, and their preprocessing.

    Frozen ones are the same in every fold, random ones too: building them leaves torch's generator as it was.

    Returns:
        The encoders, and size, mean, std, interpolation and resize mode of the pictures they were trained on.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()), enabled=model.freeze):
        if model.freeze:
            torch.manual_seed(_SEED_OF_RANDOM_FROZEN)
        clip = open_clip.create_model(
            model.clip,
            pretrained=model.pretrained,
            force_quick_gelu=bool(describe_architecture(model).get("quick_gelu")),
            pretrained_text=False,
        )
    return clip, open_clip.get_model_preprocess_cfg(clip)


def check_weights_file(name: str, path: Path) -> None:
    """Compares names and shapes in a weights file with the architecture.

    Raises:
        DataError: the file cannot be read without executing code, or belongs to another architecture.
    """
    with torch.device("meta"):
        expected = {
            key: tuple(value.shape) for key, value in build_clip(open_clip.get_model_config(name)).state_dict().items()
        }
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
            found = {key.removeprefix("module."): tuple(value.shape) for key, value in state.items()}
    except Exception as error:  # torn files and pickles with code raise many types
        reason = str(error).partition(". ")[0].partition("\n")[0]  # torch goes on with how to run the code after all
        raise DataError(
            f"model.pretrained={path}: no weights file that can be read without running code "
            f"({type(error).__name__}: {reason}); expected .safetensors or a state dict"
        ) from None
    problems = [f"{key} is missing" for key in expected if key not in found and not key.endswith("attn_mask")]
    problems += [f"{key} is not known" for key in found if key not in expected]
    problems += [
        f"{key} is {found[key]} instead of {shape}"
        for key, shape in expected.items()
        if key in found and found[key] != shape and not key.endswith("positional_embedding")  # open_clip resizes those
    ]
    if problems:
        raise DataError(
            f"model.pretrained={path} does not fit model.clip={name}: {len(problems)} tensors differ "
            f"({'; '.join(problems[:3])}). Set model.clip to the architecture of the file"
        )
