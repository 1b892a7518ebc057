"""python -m causeway.worker: owns one host's devices and serves the head that is named."""

import argparse
import os
import signal
import sys


def _arguments(argv):
    parser = argparse.ArgumentParser(prog="causeway-worker", description=__doc__)
    parser.add_argument("--head", required=True, help="host:port of the head's control service")
    parser.add_argument("--worker", type=int, default=-1, help="place in the cluster, from 0")
    parser.add_argument(
        "--spare", action="store_true",
        help="take any place whose worker is lost, now or later; --worker is the one to prefer",
    )
    parser.add_argument("--devices", type=int, default=0, help="devices to use (cpu: to make)")
    parser.add_argument("--platform", default="cpu", choices=("cpu", "cuda", "rocm"))
    parser.add_argument("--port", type=int, default=0, help="data port; 0 = any free one")
    parser.add_argument("--host", default="", help="address that other workers reach us at")
    parser.add_argument(
        "--reattach-seconds", type=float, default=60.0, help="how long to look for a lost head"
    )
    parser.add_argument(
        "--connect-seconds", type=float, default=30.0, help="how long to look for the head at start"
    )
    options = parser.parse_args(argv)
    if options.worker < 0 and not options.spare:
        parser.error("give --worker N, the place in the cluster, or --spare")
    return options


def _environment(options):
    """Set before jaxlib is loaded: XLA reads it once."""
    devices = max(1, options.devices)
    pool = str(max(os.cpu_count() or 1, 4 * devices))
    # Launch tasks and executions share one pool in XLA:CPU; a small one deadlocks under load.
    os.environ["NPROC"] = pool
    os.environ["PJRT_NPROC"] = pool
    os.environ["JAX_PLATFORMS"] = "cpu" if options.platform == "cpu" else options.platform
    os.environ["JAX_ENABLE_X64"] = "1"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    flags = os.environ.get("XLA_FLAGS", "")
    # A slow peer is not a dead one: the head decides, not XLA's rendezvous timers.
    for flag, value in (
        ("xla_cpu_collective_call_warn_stuck_timeout_seconds", 600),
        ("xla_cpu_collective_call_terminate_timeout_seconds", 86400),
        ("xla_cpu_collective_timeout_seconds", 86400),
    ):
        if flag not in flags:
            flags += f" --{flag}={value}"
    # The worker makes its own devices; a client's wish for virtual ones must not add to them.
    flags = " ".join(
        f for f in flags.split() if not f.startswith("--xla_force_host_platform_device_count")
    )
    os.environ["XLA_FLAGS"] = flags


def main(argv=None):
    options = _arguments(sys.argv[1:] if argv is None else argv)
    _environment(options)
    # The C++ owns the main thread, so Python's own handlers would never run.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.setswitchinterval(0.0005)
    try:
        from causeway.worker import backend  # pylint: disable=import-outside-toplevel

        device = backend.Backend(options.platform, options.devices)
        from causeway._native import _worker  # pylint: disable=import-outside-toplevel
    except Exception as error:  # pylint: disable=broad-except
        print(f"causeway-worker: cannot start: {error}", file=sys.stderr, flush=True)
        return 1
    return _worker.main(device, vars(options))


if __name__ == "__main__":
    sys.exit(main())
