"""What is decided before anything is launched: checks, the division into folds, leaks, what an existing run keeps."""
