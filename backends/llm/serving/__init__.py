"""The server's side of a language model: requests and texts, over an engine elsewhere."""
