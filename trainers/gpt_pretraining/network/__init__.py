"""The decoder, its loss and its workers."""
