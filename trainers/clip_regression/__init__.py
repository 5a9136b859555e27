"""CLIP multimodal regression: image + text + age -> a non-negative number (views, a price, ...)."""
