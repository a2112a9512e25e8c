"""LoRA adapters: read from PEFT's folders, and computed many at a time over one model."""
