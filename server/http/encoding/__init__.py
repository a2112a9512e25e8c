"""What the APIs of embedding models, classifiers and rerankers share: choosing one, asking it."""
