"""The pictures and masks, found and checked. No torch."""
