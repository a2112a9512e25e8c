"""What requests cost: prices, who has spent what, and on which model. Nothing of it is in the way
of a request where the operator names no prices."""
