"""How language models write thoughts and calls of tools: how each format is read and forced."""
