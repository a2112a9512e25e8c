"""The processes of language models' engines, as the system's tools show them."""

import psutil


def engines_of(server_pid: int, model: str = "") -> list[psutil.Process]:
    """Those of a server, or of one of its models; not what they are forked from."""
    children = psutil.Process(server_pid).children(recursive=True)
    return [each for each in children if each.name().startswith(f"llm:{model}")]
