"""A run as it lies on disk: its folder, its files, the state of its folds, the record of its metrics."""
