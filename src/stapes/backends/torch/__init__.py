"""The network in PyTorch, for GPUs. Only `devices.py` may be imported where PyTorch is not installed (docs/gpu.md)."""
