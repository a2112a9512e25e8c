"""Anthropic's Messages API, over the chats of the OpenAI rooms."""
