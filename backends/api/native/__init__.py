"""What of the contract is in C, too: the same results in fewer instructions."""
