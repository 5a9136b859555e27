"""Documents: found, read, made up, and as tokens on disk."""
