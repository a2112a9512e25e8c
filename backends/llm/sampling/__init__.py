"""Logits to tokens, within grammars."""
