"""Who may ask for what: keys, scopes, limits, certificates. Knows no protocol's messages."""
