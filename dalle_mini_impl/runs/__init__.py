"""The run folder: what a training run leaves, and what sampling reads."""
