"""Folders as transformers writes them: what backends that open such have in common."""
