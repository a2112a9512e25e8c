"""Which tokens of which sequences a step computes, and where they lie. No tensors, no clock."""
