"""Tables as tensors: columns of their own or one matrix, and models that predict from them."""
