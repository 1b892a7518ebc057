"""The command line: `./causeway` in a checkout, `causeway` where the package is installed."""
