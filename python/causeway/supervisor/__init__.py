"""The detached process that owns the head and the workers of one cluster on this machine.

It speaks no gRPC and starts no threads, so starting children from it is always safe.
"""
