"""Which of the loaded versions have memory, and which sleep: they serve, and wake for a request."""
