"""trivet: one inference server for models of every framework and for LLMs."""

__version__ = "0.1.0"
__all__ = ["__version__"]
