"""Decides what runs where. The only package that imports ray, wandb and tyro."""
