"""Tuning: many K-fold runs of a recipe with other values in some fields, compared on the same folds."""
