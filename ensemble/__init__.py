"""Combining models and scoring them: arrays in, arrays out. Nothing here imports torch, ray or a model family."""
