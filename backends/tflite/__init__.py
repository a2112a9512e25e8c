"""TensorFlow Lite's models, by LiteRT."""
