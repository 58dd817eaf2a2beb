"""lmdistill: turn a large language model's answers and its reasoning into a small model that you own."""

__version__ = "0.1.0"
