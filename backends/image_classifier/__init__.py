"""Image classifiers of Hugging Face as folders: an image in; scores of labels out."""
