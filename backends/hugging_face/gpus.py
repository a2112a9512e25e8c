"""Whether what opens these folders computes on GPUs here."""


def can_use_gpus() -> bool:
    """Also where torch is not installed."""
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return torch.cuda.is_available()
