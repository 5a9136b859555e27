"""A diffusion transformer that predicts clean pictures from noisy ones, pixel by pixel ("JiT")."""
