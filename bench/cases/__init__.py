"""One module a benchmark: `run(options)` in the harness, `client(config)` in client processes."""
