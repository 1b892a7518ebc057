#!/usr/bin/env python3
"""Checks the house rules that a machine can check: floors, circles, banned words, first lines.

    tools/layering.py [SOURCE_ROOT]     (default: src/causeway beside this folder's parent)

A folder may include itself and folders on lower floors. Prints one line a violation; exit status 1
when there is any.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FLOORS = {
    "base": 1,
    "model": 2,
    "wire": 3,
    "net": 2,
    "device": 3,
    "callbacks": 3,
    "liveness": 4,
    "core": 4,
    "coordination": 4,
    "controller": 5,
    "worker": 5,
    "proxy": 5,
    "ops": 5,
    "sim": 6,
    "fuzz": 6,
    "bin": 7,
}

# Word, what to use instead, and who may use it, with the reason.
_GRPC_DEADLINE = "gRPC takes deadlines as dates"
BANNED = [
    (
        r"std::string_view",
        "absl::string_view",
        {"callbacks/handler.cc": "XLA's FFI headers want it"},
    ),
    (
        r"system_clock::now",
        "causeway/base/clock.h, or absl::Now() for a gRPC deadline",
        {
            "proxy/proxy_test_client.h": _GRPC_DEADLINE,
            "worker/control_client.cc": _GRPC_DEADLINE,
            "worker/testing/fake_head.cc": _GRPC_DEADLINE,
        },
    ),
    (r"std::rand\b|\bsrand\(", "causeway/base/random.h", {}),
    (
        r"\bsleep_for\b|\bSleepFor\b|\busleep\(",
        "causeway/base/timers.h, or wait for a condition",
        {
            "worker/control_client.cc": "a pause between attempts to reach the head",
            "worker/worker.cc": "a bounded pause on the thread that breaks collectives off",
        },
    ),
    (r"std::views|std::ranges::views|<ranges>", "a loop (clang 14 cannot parse views)", {}),
    (r"<format>|std::format\b", "absl::StrCat", {}),
    (r"<source_location>", "__FILE__ and __LINE__", {}),
    (r"<expected>|std::expected", "absl::StatusOr", {}),
    (r"absl::optional", "std::optional", {}),
    (
        r"\bSimScope\b",
        "nothing: only a simulation may install hooks under production code",
        {
            "base/probes.h": "declares it",
            "base/probes.cc": "defines it",
            "base/probes_test.cc": "tests it",
            "sim/simulation.cc": "is the simulation",
        },
    ),
]

_INCLUDE = re.compile(r'^\s*#\s*include\s+"causeway/([^"]+)"', re.MULTILINE)
_NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)


def sources(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.suffix in (".h", ".cc"))


def code_only(text: str) -> str:
    """The text without comments and strings; line numbers stay."""
    return _NOISE.sub(lambda m: "\n" * m.group().count("\n"), text)


def check_floors(name: str, includes: list[str]) -> list[str]:
    folder = name.split("/")[0]
    if folder not in FLOORS:
        return [f"{name}: folder {folder!r} has no floor; give it one in tools/layering.py"]
    found = []
    for target in includes:
        other = target.split("/")[0]
        if other == folder:
            continue
        if other not in FLOORS:
            found.append(f"{name}: includes {target}, whose folder has no floor")
        elif FLOORS[other] > FLOORS[folder]:
            found.append(f"{name}: includes {target}, which is on a higher floor")
        elif FLOORS[other] == FLOORS[folder]:
            found.append(
                f"{name}: includes {target}, which is on the same floor; meet in a lower folder"
            )
    return found


def check_circles(graph: dict[str, list[str]]) -> list[str]:
    """Files that include themselves by way of others."""
    state: dict[str, int] = {}
    found: list[str] = []

    def visit(name: str, path: list[str]) -> None:
        state[name] = 1
        for target in graph.get(name, []):
            if state.get(target) == 1:
                circle = [*path[path.index(target) :], target]
                found.append(f"{name}: circular include: {' -> '.join(circle)}")
            elif target not in state:
                visit(target, [*path, target])
        state[name] = 2

    for name in graph:
        if name not in state:
            visit(name, [name])
    return found


def check_words(name: str, text: str) -> list[str]:
    found = []
    for number, line in enumerate(code_only(text).splitlines(), start=1):
        for pattern, instead, allowed in BANNED:
            if re.search(pattern, line) and name not in allowed:
                found.append(f"{name}:{number}: {pattern} is banned; use {instead}")
    return found


def check_first_line(name: str, text: str) -> list[str]:
    lines = text.splitlines()
    if not lines or not re.match(r"// \S+ \S", lines[0]):
        return [f"{name}:1: the first line must be a comment that says what the file is"]
    block = []
    for line in lines:
        if not line.startswith("//"):
            break
        block.append(line)
    if not re.search(r"[.:]", "\n".join(block)):
        return [f"{name}:1: the first comment must be a whole sentence"]
    if name.endswith(".h") and "#pragma once" not in text:
        return [f"{name}: a header needs #pragma once"]
    return []


def check_readme(root: Path, folder: str, used: set[str]) -> list[str]:
    readme = root / folder / "README.md"
    if not readme.exists():
        return [f"{folder}: has no README.md"]
    match = re.search(r"Depends only on:(.*?)(?:\n\n|\Z)", readme.read_text(), re.S)
    if not match:
        return [f"{folder}/README.md: has no line 'Depends only on: ...'"]
    named = set(re.findall(r"\w+", match.group(1)))
    return [
        f"{folder}/README.md: does not name {other!r}, which the folder includes"
        for other in sorted(used - named - {folder})
    ]


def check(root: Path) -> list[str]:
    found: list[str] = []
    graph: dict[str, list[str]] = {}
    uses: dict[str, set[str]] = {}
    for path in sources(root):
        name = path.relative_to(root).as_posix()
        text = path.read_text()
        includes = _INCLUDE.findall(text)
        graph[name] = includes
        uses.setdefault(name.split("/")[0], set())
        if not name.endswith("_test.cc") and "/testing/" not in name:
            uses[name.split("/")[0]].update(i.split("/")[0] for i in includes)
        found += check_floors(name, includes)
        found += check_words(name, text)
        found += check_first_line(name, text)
    found += check_circles(graph)
    for folder in sorted(uses):
        found += check_readme(root, folder, uses[folder])
    return found


def main() -> int:
    default = Path(__file__).resolve().parent.parent / "src" / "causeway"
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    files = len(sources(root))
    if files == 0:
        print(f"layering: no sources below {root}")
        return 1
    found = check(root)
    for line in found:
        print(line)
    print(f"layering: {files} files, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
