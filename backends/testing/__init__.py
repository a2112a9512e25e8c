"""Small backends without a framework, for tests, demonstrations and measuring the server."""
