"""The worker's half in Python: jaxlib calls for the C++ worker, and its command line."""
