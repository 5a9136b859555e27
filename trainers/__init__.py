"""Model families: each folder learns one model on one split. Nothing here imports ray, wandb or ray_jobs."""
