"""Prompts as versions: a folder with a prompt.toml is a model on another model's engine."""
