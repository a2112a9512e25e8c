"""OpenVINO's models."""
