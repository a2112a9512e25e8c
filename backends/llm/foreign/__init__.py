"""Models computed by transformers' own classes, over our cache: what no family knows."""
