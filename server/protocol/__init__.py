"""Pieces of the protocols that HTTP and gRPC share."""
