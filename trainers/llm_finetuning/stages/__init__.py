"""The stages of a fold: supervised, then GRPO, then the evaluation of every model that they came to."""
