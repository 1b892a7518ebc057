"""The parts of tools/jax_conformance.py."""
