"""Training: one loop, and what pretraining, fine-tuning and preference optimisation bring to it."""
