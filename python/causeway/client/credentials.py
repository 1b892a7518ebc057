"""Lets the stock client speak plaintext gRPC unless the user chose otherwise."""

from __future__ import annotations

import os

VARIABLE = "IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS"


def install() -> None:
    # The C++ side reads the variable when it makes its channel, which has not happened yet.
    os.environ.setdefault(VARIABLE, "true")
