"""scikit-learn's models: skops files, and pickles where the operator allows them."""
