"""The options of a server: where they stand (`table`) and what each tells of itself (`options`)."""

from trivet.server.settings.options import Option, Row
from trivet.server.settings.table import Settings, rows

__all__ = ["Option", "Row", "Settings", "rows"]
