"""The verbs of the command line that talk to a server or look at a folder; `serve` is in cli.py."""
