"""TensorFlow's and Keras's models, each instance in a process of its own."""
