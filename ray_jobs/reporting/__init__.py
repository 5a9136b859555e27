"""From a run's records and files: analysis of a training, figures, report.html. Trains nothing and decides nothing."""
