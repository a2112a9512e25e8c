"""A decoder step in C for processors with AVX512-BF16. Optional: built where a compiler is."""
