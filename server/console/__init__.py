"""The console: a page in a browser that shows a server and lets people try its models."""
