"""What frozen encoders make of the rows, computed once for all folds, epochs, members and runs that share a storage.

    <cache>/features/<key>/encoders.json            the encoders: architecture, preprocessing, size
                           weights.json             name and checksum of
                           weights.safetensors      their weights, which every run needs beside its checkpoints
                           image/ text/             blocks of rows (`trainers/row_blocks.py`)

The key stands for everything that decides a row's features besides its content: weights, preprocessing, precision, kind of
device, versions. Number of threads and neighbours in a pass do not (`model.encode_fixed`).

Shape suffixes: N rows, K bytes of a hash, D embedding.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainers.clip_regression.arithmetic import autocast, choose_precision
from trainers.clip_regression.config import Config, ModelConfig, with_tuples
from trainers.clip_regression.data import drop_tokens
from trainers.clip_regression.model import ENCODE_ROWS, averages_tokens, encode_fixed, text_encoder
from trainers.clip_regression.rows_file import RowsFile, read_pictures, read_texts, read_weights_digest
from trainers.interface import Split, Workplace
from trainers.row_blocks import KEY_BYTES, Part, RowBlocks, fill
from trainers.whole_files import appearing_whole, write_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

_COMPUTED_BY = ("torch", "open_clip_torch", "torchvision", "timm", "transformers", "pillow")


@dataclass(frozen=True)
class Encoders:
    """Frozen encoders as far as a fold needs them that has the features of all rows.

    Attributes:
        architecture: open_clip's config.
        preprocessing: of pictures.
        num_params: in all.
    """

    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    num_params: int


def has_encoders(config: Config) -> bool:
    """Whether there is anything to encode."""
    return bool(config.data.train_pictures or config.data.text_columns)


def is_cached(config: Config) -> bool:
    """Whether this config trains on features."""
    return config.model.freeze and config.features.cache and has_encoders(config)


def prepare_features(
    config: Config, tables: Mapping[str, RowsFile], split: Split, place: Workplace
) -> tuple[Encoders, dict[str, dict[str, list[RowBlocks]]]]:
    """Finds the features of all rows and computes those that are missing, together with the other folds.

    Args:
        config: of the family.
        tables: train and test.
        split: whose fold this is.
        place: where it is trained.

    Returns:
        The encoders; by table (train, test) and modality the versions of its rows, the plain one first.
    """
    source = _Source(config, place)
    encoders, parts = source.plan_all(tables)
    if split.fold == 0 and place.rank == 0:  # one of those that begin together, while the others encode
        source.find_weights()
    fill([part for modalities in parts.values() for part in chain(*modalities.values())], "encoding", split, place)
    blocks = {
        name: {modality: [part.blocks for part in versions] for modality, versions in modalities.items()}
        for name, modalities in parts.items()
    }
    return encoders, blocks


def find_weights(config: Config, place: Workplace) -> tuple[Path, str]:
    """The file of the frozen encoders' weights and its SHA-256; writes it where nobody has."""
    return _Source(config, place).find_weights()


def plan_features(
    config: Config, tables: Mapping[str, RowsFile], place: Workplace
) -> tuple[Encoders, dict[str, dict[str, list[Part]]]]:
    """Where the features of all rows are, or how they are computed; only the encoders are looked for, and written if need be.

    Returns:
        The encoders; by table (train, test) and modality the versions of its rows, the plain one first.
    """
    return _Source(config, place).plan_all(tables)


class _Source:
    """Computes features: of which rows, into which folder. The encoders are loaded when they are first needed."""

    def __init__(self, config: Config, place: Workplace) -> None:
        self.config, self.place = config, place
        self.precision = choose_precision(config.training, place.device)
        self.folder = place.cache / "features" / _describe_key(config.model, self.precision, place)
        self.clip: nn.Module | None = None

    def plan_all(self, tables: Mapping[str, RowsFile]) -> tuple[Encoders, dict[str, dict[str, list[Part]]]]:
        """See `plan_features`."""
        encoders, num_views = self.find_encoders(), {"train": self.config.features.num_views, "test": 1}
        return encoders, {name: self.plan(table, encoders, num_views[name]) for name, table in tables.items()}

    def find_encoders(self) -> Encoders:
        """The encoders' facts; writes them where nobody has."""
        known = _read_facts(self.folder / "encoders.json", ("architecture", "preprocessing", "num_params"))
        if known is None:
            known = self.place.insist("keeping what the frozen encoders are", self._keep_encoders)
        return Encoders(known["architecture"], with_tuples(known["preprocessing"]), known["num_params"])

    def find_weights(self) -> tuple[Path, str]:
        """The weights' file and its SHA-256."""
        path = self.folder / "weights.safetensors"
        known = _read_facts(self.folder / "weights.json", ("bytes", "sha256"))
        if known is None or not path.exists() or path.stat().st_size != known["bytes"]:
            known = self.place.insist("keeping the frozen encoders", partial(self._keep_weights, path))
        return path, known["sha256"]

    def _keep_encoders(self) -> dict[str, Any]:
        clip, preprocessing = self._load()
        num_params = sum(parameter.numel() for parameter in clip.parameters())
        facts = {"architecture": self.architecture, "preprocessing": preprocessing, "num_params": num_params}
        write_whole(self.folder / "encoders.json", json.dumps(facts, indent=2).encode())
        return facts

    def _keep_weights(self, path: Path) -> dict[str, Any]:
        from safetensors.torch import save_file

        clip, _ = self._load()
        tensors = {f"clip.{name}": value.detach().cpu().contiguous() for name, value in clip.state_dict().items()}
        with appearing_whole(path) as file:
            save_file(tensors, file.name)  # into the same file, without a copy of all in memory
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        facts = {"bytes": path.stat().st_size, "sha256": sha256}
        write_whole(path.with_suffix(".json"), json.dumps(facts).encode())
        return facts

    def plan(self, table: RowsFile, encoders: Encoders, num_views: int) -> dict[str, list[Part]]:
        """The features of a table's rows, by modality and version."""
        data, training, model = self.config.data, self.config.training, self.config.model
        parts: dict[str, list[Part]] = {}
        if data.train_pictures:
            marks = ["", "flipped"] if training.horizontal_flip and num_views > 1 else [""]
            parts["image"] = [self._plan_one("image", table, mark, encoders) for mark in marks]
        if data.text_columns:
            further = range(1, num_views if model.token_dropout else 1)
            marks = ["", *(f"version {number} without {model.token_dropout} of its tokens" for number in further)]
            parts["text"] = [self._plan_one("text", table, mark, encoders) for mark in marks]
        return parts

    def _plan_one(self, modality: str, table: RowsFile, mark: str, encoders: Encoders) -> Part:
        kind, encode = {"image": ("picture", self._encode_pictures), "text": ("text", self._encode_texts)}[modality]
        keys_NK = _mark_keys(table.rows.digests[kind], mark)
        blocks = RowBlocks(self.folder / modality, keys_NK, (encoders.architecture["embed_dim"],), np.float32)

        def compute(positions: np.ndarray) -> tuple[np.ndarray, Sequence[str | None]]:
            with torch.inference_mode(), autocast(self.place.device, self.precision):
                features, problems = encode(table.path, positions, keys_NK[positions] if mark else None)
            return features.float().cpu().numpy(), problems

        return Part(blocks, compute)

    def _encode_pictures(
        self, path: Path, positions: np.ndarray, keys_NK: np.ndarray | None
    ) -> tuple[Tensor, list[str | None]]:
        """Mirrored, if the keys are those of another version."""
        from trainers.clip_regression.picture_reader import PictureReader

        clip, preprocessing = self._load()
        reader = PictureReader(preprocessing)
        pictures, problems = reader.read_all(read_pictures(path, positions), self.place.num_threads)
        images_BCHW = torch.from_numpy(pictures if keys_NK is None else pictures[..., ::-1].copy())
        images_BCHW = images_BCHW.to(self.place.device)
        return encode_fixed(lambda part: clip.encode_image(reader.normalise(part)), images_BCHW), problems

    def _encode_texts(
        self, path: Path, positions: np.ndarray, keys_NK: np.ndarray | None
    ) -> tuple[Tensor, Sequence[str | None]]:
        """With fewer tokens, if the keys are those of another version."""
        import open_clip

        clip, _ = self._load()
        tokens_BL = open_clip.get_tokenizer(self.config.model.clip)(read_texts(path, positions))
        if keys_NK is not None:
            tokens_BL = drop_tokens(tokens_BL, _draw_kept(keys_NK, tokens_BL.shape[1], self.config.model.token_dropout))
        encode = text_encoder(clip, average=averages_tokens(self.architecture))
        return encode_fixed(encode, tokens_BL.to(self.place.device)), ()

    def _load(self) -> tuple[nn.Module, dict[str, Any]]:
        from trainers.clip_regression.encoders import describe_architecture, load_clip

        if self.clip is None:
            self.clip, self.preprocessing = load_clip(self.config.model)
            self.architecture = describe_architecture(self.config.model)
            self.clip.to(self.place.device).eval().requires_grad_(False)
        return self.clip, self.preprocessing


def _read_facts(path: Path, names: tuple[str, ...]) -> dict[str, Any] | None:
    """A JSON file with these names; None: it is not there, or damaged."""
    try:
        known = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return known if isinstance(known, dict) and known.keys() >= set(names) else None


def _describe_key(model: ModelConfig, precision: torch.dtype, place: Workplace) -> str:
    """A hash of everything that decides features besides the rows' content."""
    weights = model.pretrained
    own = Path(__file__).parent / "model_configs" / f"{model.clip}.json"
    if weights and os.path.isfile(weights):
        weights = read_weights_digest(model, place.inputs)
    described = {
        "model": model.clip,
        "architecture": own.read_text() if own.is_file() else None,
        "weights": weights,
        "quick_gelu": model.quick_gelu,
        "precision": str(precision),
        "device": torch.device(place.device).type,
        "rows of a pass": ENCODE_ROWS,
        "versions": {package: _find_version(package) for package in _COMPUTED_BY},
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _find_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _mark_keys(keys_NK: np.ndarray, mark: str) -> np.ndarray:
    """Keys of another version of the same rows."""
    if not mark:
        return keys_NK
    marked = [hashlib.sha256(key.tobytes() + mark.encode()).digest()[:KEY_BYTES] for key in keys_NK]
    return np.frombuffer(b"".join(marked), np.uint8).reshape(-1, KEY_BYTES)


def _draw_kept(keys_NK: np.ndarray, num_tokens: int, share: float) -> Tensor:
    """Which tokens of each row stay, (N, num_tokens) bool: drawn by the row's key, so that no other row matters."""
    draws = [np.random.default_rng(key.view(np.uint32)).random(num_tokens) for key in np.ascontiguousarray(keys_NK)]
    return torch.from_numpy(np.stack(draws) >= share)
