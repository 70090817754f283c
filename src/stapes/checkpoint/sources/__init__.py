"""Where checkpoints come from: paths, installed packages, model folders, the Hugging Face hub."""
