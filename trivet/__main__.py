"""`python -m trivet` is the `trivet` command."""

from trivet.server.cli import main

if __name__ == "__main__":
    main()
