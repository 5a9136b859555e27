"""The user's own trainer: a function that trains a fold, or an estimator with fit and predict, on a table."""
