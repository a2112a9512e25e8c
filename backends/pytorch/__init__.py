"""The PyTorch backend: TorchScript, torch.export, AOTInductor, Python module with weights."""
