"""The process that the user started: launches the folds, watches them, ends the run."""
