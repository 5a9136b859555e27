"""The JSON files of a run as dataclasses: what is told of its folds while it runs, and of the run when it is done."""
