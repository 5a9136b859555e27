"""A fold's training on its workers: the trainer's context, resume points, the watchdog."""
