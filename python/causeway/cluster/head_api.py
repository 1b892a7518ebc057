"""The head's HTTP door, seen from a client of it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

# A proxy set for the web must not stand between this machine and itself.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class HeadUnreachable(Exception):
    """The head did not answer in time, or not with what was asked for."""


def get_json(ops_url: str, path: str, timeout_seconds: float = 3.0) -> dict[str, Any]:
    try:
        with _OPENER.open(ops_url + path, timeout=timeout_seconds) as response:
            answer = json.load(response)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise HeadUnreachable(f"{ops_url}{path}: {error}") from error
    if not isinstance(answer, dict):
        raise HeadUnreachable(f"{ops_url}{path} answered {type(answer).__name__}, not an object")
    return answer


def status(ops_url: str, timeout_seconds: float = 3.0) -> dict[str, Any]:
    return get_json(ops_url, "/status", timeout_seconds)


def devices(ops_url: str, timeout_seconds: float = 3.0) -> list[dict[str, Any]]:
    answer = get_json(ops_url, "/devices", timeout_seconds)
    return list(answer.get("devices", []))


def alive_workers(answer: dict[str, Any]) -> set[int]:
    """The numbers of the workers that have joined and are in the current epoch.

    A worker whose stream is open but whose epoch is not is "joining" and does not count yet.
    """
    return {
        int(entry["id"]) for entry in answer.get("workers", []) if entry.get("state") == "alive"
    }
