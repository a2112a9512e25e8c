"""Memory that clients register, so that tensors travel by name."""
