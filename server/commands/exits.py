"""What a command ends with when it cannot do what it was told: one sentence, and a code by kind.

1 is what has no code of its own; 2 is click's, for words that are no command.
"""

import click

NOBODY, KEY, NOT_THERE, DISK, VERSION = 3, 4, 5, 6, 7
PIPE = 141
"""As shells have it of a program that a closed pipe ends."""


class NobodyAnswers(click.ClickException):
    """No server, or no network."""

    exit_code = NOBODY


class KeyRefused(click.ClickException):
    """The server asks for a key, or for one with another scope."""

    exit_code = KEY


class NotThere(click.ClickException):
    """No model, or whatever was named, is called so."""

    exit_code = NOT_THERE


class DiskFails(click.ClickException):
    """The disk is full, or cannot be written to."""

    exit_code = DISK


class OtherVersion(click.ClickException):
    """The server is no trivet, or one that does not know what it was asked."""

    exit_code = VERSION
