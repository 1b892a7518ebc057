"""The program that `causeway demo` runs: stock JAX, which loses a slice and gets it back."""
