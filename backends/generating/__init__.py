"""What every backend of generating models does alike with tensors."""
