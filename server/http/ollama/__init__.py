"""Ollama's API, over the chats of `server/http/openai` and its embeddings."""
