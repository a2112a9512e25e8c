"""Model classes, their kernels and their configs."""
