"""Texts to tokens and back: templates, tokenizers, tools."""
