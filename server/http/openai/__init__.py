"""The OpenAI API over any generating model, with vLLM's further fields."""
