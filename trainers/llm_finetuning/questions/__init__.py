"""Questions: read from the user's tables, made up, checked, and left for the folds. No torch."""
