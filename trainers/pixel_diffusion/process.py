"""What turns a picture into noise, in one frozen object that training, validation, sampling and checkpoints share. No
torch.

A picture x in [-1, 1] at time t in [0, 1] is z = t x + (1 - t) ε with ε ~ N(0, noise_scale²). Losses under different
processes cannot be compared: less noise is an easier task, not a better model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trainers.values import check_number


@dataclass(frozen=True)
class Process:
    """Noise scale, distribution of times and clamp, as of Li and He 2025, "Back to Basics: Let Denoising Generative
    Models Denoise" (https://arxiv.org/abs/2511.13720), sections 3 and 4."""

    noise_scale: float = 1.0
    """Standard deviation of the noise. The paper has 1, 2 and 4 at 256², 512² and 1024²; below 256² nothing is
    published. Less noise gives a lower loss, as the task is easier."""
    time_mean: float = -0.8
    """Times are sigmoid(time_mean + time_spread · N(0, 1)); 1 is the clean picture."""
    time_spread: float = 0.8
    """Standard deviation before the sigmoid."""
    clamp: float = 0.05
    """Least value of 1 - t that velocities are divided by, in the loss and in the sampler."""

    def __post_init__(self) -> None:
        check_number("process.noise_scale", self.noise_scale, above=0)
        check_number("process.time_mean", self.time_mean)
        check_number("process.time_spread", self.time_spread, above=0)
        check_number("process.clamp", self.clamp, above=0, below=1)

    def describe(self) -> dict[str, Any]:
        """Its values by name."""
        return asdict(self)
