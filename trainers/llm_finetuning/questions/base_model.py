"""Where the model to begin with is: a folder, a GGUF file, a tag of the hub, or the one that comes with the project.
And a checksum of it. No torch of its own: what loads it is imported when it is needed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from trainers.interface import DataError
from trainers.llm_finetuning.config import ModelConfig
from trainers.storage.whole_files import sha256_file

# The files of an adapter in PEFT's form: its shape and its weights.
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TINY = Path(__file__).parents[1] / "tiny_llama"
_NEEDED = "config.json"
_READ = (".safetensors", ".json", ".jinja", ".model", ".bin")


def find_source(model: ModelConfig) -> Path:
    """The folder or GGUF file of the model; of a tag of the hub it is fetched, unless it is there.

    Raises:
        DataError: there is no such model.
    """
    if model.path is None:
        return TINY
    path = Path(os.path.expanduser(model.path)).absolute()
    if path.is_file() and path.suffix == ".gguf":
        return path
    if path.is_dir():
        if not (path / _NEEDED).exists():
            raise DataError(f"model.path={path}: no {_NEEDED} in it: expected a model in Hugging Face's form")
        return path
    if path.exists() or model.path.startswith(("/", ".", "~")):
        raise DataError(f"model.path={model.path}: expected a folder, a .gguf file, or a tag of the hub; found none")
    return _fetch(model.path)


def _fetch(tag: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [f"*{ending}" for ending in _READ if ending != ".bin"]
    try:
        return Path(snapshot_download(tag, allow_patterns=wanted))
    except Exception as error:  # of the hub, of the network, of names
        raise DataError(
            f"model.path={tag}: no such folder, and the hub does not give it ({type(error).__name__}: {error!s:.200}); "
            "give the path of a folder that holds the model"
        ) from None


def hash_source(source: Path) -> str:
    """SHA-256 of the files that decide what the model is."""
    if source.is_file():
        return sha256_file(source)
    digest = hashlib.sha256()
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in _READ:
            digest.update(f"{path.name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def place_converted(sha256: str) -> Path:
    """Where a GGUF file of this checksum lies in Hugging Face's form, on this machine."""
    home = Path(os.path.expanduser(os.environ.get("HF_HOME", "~/.cache/huggingface")))
    return home / "from_gguf" / sha256[:16]


def find_base(model: ModelConfig) -> Path:
    """The folder of the model in Hugging Face's form; a GGUF file is converted, once on each machine.

    Raises:
        DataError: there is no such model.
    """
    source = find_source(model)
    if source.is_dir():
        return source
    folder = place_converted(model.sha256 or hash_source(source))
    if not (folder / _NEEDED).exists():
        from trainers.llm_finetuning.network.gguf import convert_gguf

        convert_gguf(source, folder)
    return folder
