"""OpenAI's Responses API: another form of chats, whose answers are kept for a while."""
