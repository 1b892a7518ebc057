"""A cluster on this machine: its options, its state on disk, and how it is started and stopped."""
