"""MLflow's model folders: the flavour that is data goes to that backend, others are code."""
