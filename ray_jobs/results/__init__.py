"""What finished folds are worth: scores, combinations, the submission, the summary."""
