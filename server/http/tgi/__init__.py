"""The API of Hugging Face's text-generation-inference over any generating model."""
