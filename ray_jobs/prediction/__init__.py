"""New rows through the models of a finished run."""
