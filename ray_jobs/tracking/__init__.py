"""The metric record, the source of truth of everything that is shown or sent anywhere."""
