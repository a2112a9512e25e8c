"""Memory, streams and order on a GPU, for the backends that compute on one; no framework needed."""
