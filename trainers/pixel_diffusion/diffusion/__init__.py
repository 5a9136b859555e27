"""From pictures to noise and back: the loss and the sampler."""
