"""The sweep of a finished run: every combination of its models, scored in trials of Ray Tune."""
