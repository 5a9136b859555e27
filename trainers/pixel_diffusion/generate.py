"""Makes pictures with the models of a run: of all together, whose predicted clean pictures are averaged at each
evaluation, or of one."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainers.interface import DataError, TrainedModel
from trainers.pixel_diffusion.grids import encode_picture, lay_grid
from trainers.storage.whole_files import write_whole
from trainers.values import check_number, suggest

if TYPE_CHECKING:
    from trainers.pixel_diffusion.fold.saved import SavedModel

_AT_ONCE, _MOST_REAL = 64, 10_000


@dataclass(frozen=True)
class Options:
    """What is made, and how."""

    num_samples: int = 16
    """Pictures to make."""
    label: str | None = None
    """Class of all pictures, by its name; none: all classes in turn; `nothing`: without a label."""
    guidance: float | None = None
    """How far labels are exaggerated; 1: not; none: as the run has it in sampling.guidance."""
    steps: int | None = None
    """From noise to picture; none: as the run has it in sampling.steps."""
    seed: int = 0
    """Of the noise: the same seed has the same noise, whatever the model."""

    real: str | None = None
    """Folder of real pictures, to which the kernel distance (KID) is measured; they should be ones that no model has
    seen, and 300 or more, as should the samples."""

    def __post_init__(self) -> None:
        check_number("--num-samples", self.num_samples, least=1, most=1e6)
        check_number("--guidance", self.guidance, least=0, instead="none")
        check_number("--steps", self.steps, least=1, instead="none")
        check_number("--seed", self.seed, least=0)


def generate(
    models: Sequence[TrainedModel], options: Options, folder: Path, device: str, num_threads: int
) -> Iterator[str]:
    """Makes pictures; see `trainers.interface`.

    Raises:
        DataError: models do not belong together, or there is no such class.
    """
    import torch

    from trainers.learning.arithmetic import use_deterministic_algorithms
    from trainers.pixel_diffusion.fold.saved import load_models

    use_deterministic_algorithms()
    torch.set_num_threads(num_threads)
    loaded = load_models(models, device)
    real = None if options.real is None else _read_real(Path(options.real), loaded[0], options.num_samples)
    labels, names = _choose_labels(loaded[0], options)
    yield _describe(loaded, options)
    parts, digits = [], len(str(options.num_samples - 1))
    for start in range(0, options.num_samples, _AT_ONCE):
        numbers = np.arange(start, min(start + _AT_ONCE, options.num_samples))
        made = make_pictures(loaded, options, numbers, labels[numbers], device)
        for number, picture in zip(numbers.tolist(), made, strict=True):
            write_whole(folder / f"{number:0{digits}d}{names[number]}.png", encode_picture(picture))
        parts.append(made)
        yield f"{numbers[-1] + 1:,} of {options.num_samples:,} pictures"
    if real is not None:
        yield _describe_distance(np.concatenate(parts), real, loaded[0], device)
    grid = lay_grid(np.concatenate(parts)[:400], math.ceil(min(options.num_samples, 400) ** 0.5))
    write_whole(folder / "grid.png", encode_picture(grid))


def make_pictures(
    models: Sequence[SavedModel], options: Options, numbers: np.ndarray, label_B: np.ndarray, device: str
) -> np.ndarray:
    """Pictures by their numbers, (B, 3, H, W) uint8, of the mean of what models predict."""
    import torch

    from trainers.pixel_diffusion.diffusion.fixed_noise import draw_sample_noise
    from trainers.pixel_diffusion.diffusion.sampler import Guidance, average_models, draw_samples

    first = models[0]
    sampling, network = first.config.sampling, first.network
    wanted = sampling.guidance if options.guidance is None else options.guidance
    shape = (3, network.size, network.size)
    noise = np.stack([draw_sample_noise(options.seed, number, shape) for number in numbers.tolist()])
    with torch.inference_mode():
        made = draw_samples(
            first.process,
            average_models([model.predict_clean for model in models]),
            torch.from_numpy(noise).to(device),
            torch.from_numpy(label_B).to(device),
            network.num_classes,
            steps=options.steps or sampling.steps,
            guidance=Guidance(wanted if first.classes else 1.0, sampling.guidance_low, sampling.guidance_high),
        )
    return made.cpu().numpy()


def _choose_labels(model: SavedModel, options: Options) -> tuple[np.ndarray, list[str]]:
    """Of each picture its label, and what is put behind its number in the file's name."""
    classes, number = model.classes, options.num_samples
    if options.label is None:
        turns = np.arange(number) % max(1, len(classes))
        return turns, [f"_{_to_file_name(classes[one])}" if classes else "" for one in turns.tolist()]
    if options.label == "nothing" and "nothing" not in classes:
        return np.full(number, model.network.num_classes if classes else 0), [""] * number
    if options.label not in classes:
        known = f"one of {', '.join(classes[:20])}" if classes else "none, as the run has no classes"
        raise DataError(f"--label={options.label}: expected {known}{suggest(options.label, classes)}")
    return np.full(number, classes.index(options.label)), [f"_{_to_file_name(options.label)}"] * number


def _to_file_name(name: str) -> str:
    return "".join(one if one.isalnum() or one in "-_" else "-" for one in name)[:60]


def _describe(models: Sequence[SavedModel], options: Options) -> str:
    first = models[0]
    sampling = first.config.sampling
    guidance = sampling.guidance if options.guidance is None else options.guidance
    who = f"the mean of {len(models)} models" if len(models) > 1 else "one model"
    size = first.network.size
    how = f"guidance {guidance:g}, " if first.classes else ""
    return (
        f"{options.num_samples:,} pictures of {size} x {size} pixels by {who}: {options.steps or sampling.steps} "
        f"steps, {how}noise scale {first.process.noise_scale:g}, seed {options.seed}"
    )


def _read_real(place: Path, model: SavedModel, num_samples: int) -> np.ndarray:
    """Real pictures as the run's own, (M, 3, H, W) uint8.

    Raises:
        DataError: there are too few, or one cannot be used.
    """
    from trainers.pixel_diffusion.config import FEATURES_PACKAGE, NOT_MEASURED
    from trainers.pixel_diffusion.diffusion.features import LEAST_FOR_DISTANCE
    from trainers.pixel_diffusion.rows.listing import list_folder
    from trainers.pixel_diffusion.rows.scan import scan_pictures
    from trainers.pixel_diffusion.rows.squares import read_square

    data, features = model.config.data, model.config.sampling.features
    if features == "none" or (features == "auto" and importlib.util.find_spec(FEATURES_PACKAGE) is None):
        raise DataError(f"--real={place}: {NOT_MEASURED}")
    listing = list_folder(place)
    if min(len(listing.ids) // 2, num_samples) < LEAST_FOR_DISTANCE:
        raise DataError(
            f"--real={place}: {len(listing.ids):,} pictures and --num-samples={num_samples}: expected at least "
            f"{2 * LEAST_FOR_DISTANCE} and {LEAST_FOR_DISTANCE}"
        )
    scan_pictures(replace(data, root=str(place), on_bad_row="error"), listing, "test")
    order = np.random.default_rng(0).permutation(len(listing.paths))[:_MOST_REAL]
    paths = [listing.paths[place] for place in order.tolist()]
    return np.stack([read_square(path.read_bytes(), data.size, data.picture_rules) for path in paths])


def _describe_distance(made: np.ndarray, real: np.ndarray, model: SavedModel, device: str) -> str:
    from trainers.pixel_diffusion.diffusion.features import load_network, measure_distances

    network = load_network(model.config.sampling.features, device)
    assert network is not None
    found, name = measure_distances(network, made, real, device, _AT_ONCE), f"kid_{network.name}"
    frechet = found.get(f"fid_{network.name}")
    return (
        f"1000 · {name} of {len(made):,} pictures to {len(real):,} real ones: {found[name]:.1f} ± "
        f"{found[name + '_se']:.1f}; of one half of these to the other: {found[name + '_of_real']:.1f} ± "
        f"{found[name + '_of_real_se']:.1f}" + ("" if frechet is None else f"; fid_{network.name}: {frechet:.2f}")
    )
