"""What frozen encoders make of the rows, computed once for all folds, epochs, members and runs that share a storage.

    <cache>/features/<key>/encoders.json            the encoders: architecture, preprocessing, size
                           weights.json             the checksum of
                           weights.safetensors      their weights, which every run needs beside its checkpoints
                           image/ text/             blocks of rows (`trainers/storage/row_blocks.py`)

The key stands for everything that decides a row's features besides its content: weights, preprocessing, precision, kind
of device, versions. Number of threads and neighbours in a pass do not (`model.encode_fixed`).

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

from trainers.clip_regression.config import Config
from trainers.clip_regression.inputs.data import drop_tokens
from trainers.clip_regression.network.model import ENCODE_ROWS, averages_tokens, encode_fixed, text_encoder
from trainers.clip_regression.rows.rows_file import RowsFile, read_checked, read_texts, read_weights_digest
from trainers.interface import DataError, FoldContext, Split
from trainers.learning.arithmetic import autocast, choose_precision
from trainers.learning.config_sections import with_tuples
from trainers.storage.row_blocks import KEY_BYTES, Part, RowBlocks, fill, place_remotely
from trainers.storage.whole_files import appearing_whole, sha256_file, write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.clip_regression.network.model import Clip

_COMPUTED_BY = (
    "torch",
    "open_clip_torch",
    "torchvision",
    "timm",
    "transformers",
    "tokenizers",
    "ftfy",
    "regex",
    "pillow",
)
_WAY_OF_ENCODING = 2  # to be raised with each change of this family that changes a bit of a feature


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


@dataclass(frozen=True)
class Features:
    """What a fold finds that trains on features.

    Attributes:
        encoders: that have computed them.
        blocks: by table (train, test) and modality the versions of its rows, the plain one first.
        weights: file and SHA-256 of the encoders' weights; on rank 0 only.
    """

    encoders: Encoders
    blocks: dict[str, dict[str, list[RowBlocks]]]
    weights: tuple[Path, str] | None


def prepare_features(config: Config, tables: Mapping[str, RowsFile], split: Split, context: FoldContext) -> Features:
    """Finds the features of all rows and computes those that are missing, together with the other folds.

    Args:
        config: of the family.
        tables: train and test.
        split: whose fold this is.
        context: where it is trained.

    Raises:
        DataError: a picture or the weights were changed while the run works.
    """
    source = _Source(config, context)
    encoders, parts = source.plan_all(tables)
    weights = None
    if split.fold == 0 and context.rank == 0:  # one of those that begin together, while the others encode
        weights = source.find_weights()
    fill([part for modalities in parts.values() for part in chain(*modalities.values())], "encoding", split, context)
    if weights is None and context.rank == 0:
        weights = source.find_weights()
    source.release()
    blocks = {
        name: {modality: [part.blocks for part in versions] for modality, versions in modalities.items()}
        for name, modalities in parts.items()
    }
    return Features(encoders, blocks, weights)


def plan_features(
    config: Config, tables: Mapping[str, RowsFile], context: FoldContext
) -> tuple[Encoders, dict[str, dict[str, list[Part]]]]:
    """Where the features of all rows are, or how they are computed, by table, modality and version; for who fills them
    otherwise."""
    source = _Source(config, context)
    source.find_weights()
    return source.plan_all(tables)


class _Source:
    """Computes features: of which rows, into which folder. The encoders are loaded when they are first needed."""

    def __init__(self, config: Config, context: FoldContext) -> None:
        self.config, self.context = config, context
        self.precision = choose_precision(config.training.precision, context.device)
        describe = partial(_describe_key, config, self.precision, context)
        self.folder = (
            context.cache
            / "features"
            / context.retry_while_unavailable("reading the checksum of the weights", describe)
        )
        self.clip: Clip | None = None

    def plan_all(self, tables: Mapping[str, RowsFile]) -> tuple[Encoders, dict[str, dict[str, list[Part]]]]:
        """See `plan_features`."""
        encoders, num_views = self.find_encoders(), {"train": self.config.features.num_views, "test": 1}
        return encoders, {name: self.plan(table, encoders, num_views[name]) for name, table in tables.items()}

    def find_encoders(self) -> Encoders:
        """The encoders' facts; writes them where nobody has."""
        read = partial(_read_facts, self.folder / "encoders.json")
        known = self.context.retry_while_unavailable("reading what the frozen encoders are", read)
        if known is None:
            known = self._keep_encoders()
        return Encoders(known["architecture"], with_tuples(known["preprocessing"]), known["num_params"])

    def find_weights(self) -> tuple[Path, str]:
        """The weights' file and its SHA-256; writes it where nobody has, or where it is damaged."""
        path = self.folder / "weights.safetensors"
        sha256 = self.context.retry_while_unavailable("reading the frozen encoders", partial(_read_checksum, path))
        return path, sha256 or self._keep_weights(path)

    def _keep_encoders(self) -> dict[str, Any]:
        clip, preprocessing = self._load()
        num_params = sum(parameter.numel() for parameter in clip.parameters())
        facts = {"architecture": self.architecture, "preprocessing": preprocessing, "num_params": num_params}
        write = partial(_write_facts, self.folder / "encoders.json", facts)
        self.context.retry_while_unavailable("keeping what the frozen encoders are", write)
        return facts

    def _keep_weights(self, path: Path) -> str:
        from safetensors.torch import save_file

        clip, _ = self._load()
        tensors = {f"clip.{name}": value.detach().cpu().contiguous() for name, value in clip.state_dict().items()}

        def write() -> str:
            with appearing_whole(path) as file:
                save_file(tensors, file.name)  # into the same file, without a copy of all in memory
            sha256 = sha256_file(path)
            _write_facts(path.with_suffix(".json"), {"sha256": sha256})
            return sha256

        sha256: str = self.context.retry_while_unavailable("keeping the frozen encoders", write)
        return sha256

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
        shape, folder = (encoders.architecture["embed_dim"],), self.folder / modality
        blocks = RowBlocks(folder, keys_NK, shape, np.float32, place_remotely(folder, self.context))

        def compute(positions: np.ndarray) -> tuple[np.ndarray, Sequence[str | None]]:
            self._load()
            with torch.inference_mode(), autocast(self.context.device, self.precision):
                features, problems = encode(table, positions, keys_NK[positions] if mark else None)
            return features.float().cpu().numpy(), problems

        return Part(blocks, compute)

    def _encode_pictures(
        self, table: RowsFile, positions: np.ndarray, keys_NK: np.ndarray | None
    ) -> tuple[Tensor, list[str | None]]:
        """Mirrored, if the keys are those of another version."""
        contents = read_checked(table, positions, self.context)
        pictures, problems = self.reader.decode_all(contents, self.context.num_threads)
        images_BCHW = torch.from_numpy(pictures if keys_NK is None else pictures[..., ::-1].copy())
        images_BCHW = images_BCHW.to(self.context.device)
        clip, _ = self._load()
        return encode_fixed(lambda part: clip.encode_image(self.reader.normalise(part)), images_BCHW), problems

    def _encode_texts(
        self, table: RowsFile, positions: np.ndarray, keys_NK: np.ndarray | None
    ) -> tuple[Tensor, Sequence[str | None]]:
        """With fewer tokens, if the keys are those of another version."""
        texts = self.context.retry_while_unavailable("reading texts", partial(read_texts, table.path, positions))
        tokens_BL = self.tokenizer(texts)
        if keys_NK is not None:
            tokens_BL = drop_tokens(tokens_BL, _draw_kept(keys_NK, tokens_BL.shape[1], self.config.model.token_dropout))
        clip, _ = self._load()
        encode = text_encoder(clip, average=averages_tokens(self.architecture))
        return encode_fixed(encode, tokens_BL.to(self.context.device)), ()

    def release(self) -> None:
        """Gives back the memory of the encoders, on a GPU to whoever shares it; they are loaded again if need be."""
        self.clip = None
        if self.context.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _load(self) -> tuple[Clip, dict[str, Any]]:
        if self.clip is None:
            from trainers.clip_regression.inputs.picture_reader import PictureReader
            from trainers.clip_regression.network.clip_library import open_clip
            from trainers.clip_regression.network.encoders import describe_architecture, load_clip

            self._refuse_changed_weights()
            self.clip, self.preprocessing = load_clip(self.config.model)
            self.architecture = describe_architecture(self.config.model)
            self.tokenizer = open_clip.get_tokenizer(self.config.model.clip)
            self.reader = PictureReader(self.preprocessing, self.config.data.picture_rules)
            self.clip.to(self.context.device).eval().requires_grad_(False)
        return self.clip, self.preprocessing

    def _refuse_changed_weights(self) -> None:
        """Features of other weights would be filed under the old ones' name."""
        weights = self.config.model.pretrained
        if weights and os.path.isabs(weights):
            now = self.context.retry_while_unavailable("reading model.pretrained", partial(sha256_file, Path(weights)))
            if now != read_weights_digest(self.config.model, self.context.inputs):
                raise DataError(f"{weights} was changed while the run works; put it back, or use another run.name")


def _write_facts(path: Path, facts: dict[str, Any]) -> None:
    """JSON with a checksum of itself."""
    text = json.dumps(facts)
    write_whole(path, json.dumps({"facts": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode())


def _read_facts(path: Path) -> dict[str, Any] | None:
    """What `_write_facts` wrote; None: it is not there, or damaged."""
    try:
        known = json.loads(path.read_bytes())
        is_whole = hashlib.sha256(known["facts"].encode()).hexdigest() == known["sha256"]
        return json.loads(known["facts"]) if is_whole else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _read_checksum(weights: Path) -> str | None:
    """The SHA-256 of the encoders' weights; None: they are not there, or damaged."""
    known = _read_facts(weights.with_suffix(".json"))
    if known is None or not weights.exists() or sha256_file(weights) != known["sha256"]:
        return None
    return str(known["sha256"])


def _describe_key(config: Config, precision: torch.dtype, context: FoldContext) -> str:
    """A hash of everything that decides features besides the rows' content."""
    model, rules = config.model, config.data.picture_rules
    weights = model.pretrained
    own = Path(__file__).parents[1] / "model_configs" / f"{model.clip}.json"
    if weights and os.path.isabs(weights):  # a file; whether it is there does not matter here
        weights = read_weights_digest(model, context.inputs)
    described = {
        "model": model.clip,
        "architecture": own.read_text() if own.is_file() else None,
        "weights": weights,
        "quick_gelu": model.quick_gelu,
        "pictures": [rules.bit_depth, list(rules.background)],
        "precision": str(precision),
        "device": torch.device(context.device).type,
        "rows of a pass": ENCODE_ROWS,
        "way of encoding": _WAY_OF_ENCODING,
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
