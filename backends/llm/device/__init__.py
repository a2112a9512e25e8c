"""What lies and runs on the device that an engine computes on."""
