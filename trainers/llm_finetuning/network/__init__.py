"""The language model: loaded, adapted, asked for answers and for log-probabilities."""
