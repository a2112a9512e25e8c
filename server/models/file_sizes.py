"""What a version's weights take on disk: all that is known of its memory before it is loaded."""

from trivet.backends.api import Memory, ModelFiles


def weight_bytes(files: ModelFiles, known: Memory) -> int:
    """Of the files that hold weights, as the backend says. Raises OSError."""
    return sum(
        path.stat().st_size
        for path in files.walk()
        if not known.weight_suffixes or path.suffix.lower() in known.weight_suffixes
    )
