#!/usr/bin/env python3
"""Shows that layering.py finds what it is there to find."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import layering

GOOD = "// A header that is fine.\n#pragma once\n"


class LayeringTest(unittest.TestCase):
    def check(self, **files: str) -> str:
        """Files by name, '__' for '/' and a last '_' for '.'."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for name, text in files.items():
                stem, _, ending = name.replace("__", "/").rpartition("_")
                path = root / f"{stem}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                readme = path.parent / "README.md"
                if not readme.exists():
                    readme.write_text("Depends only on: `base`, `model`, `core`, `worker`.\n")
            return "\n".join(layering.check(root))

    def test_good_code_is_silent(self) -> None:
        uses = GOOD + '#include "causeway/base/a.h"\n// no std::string_view here\n'
        self.assertEqual("", self.check(base__a_h=GOOD, model__b_h=uses))

    def test_upward_and_sideways_arrows(self) -> None:
        up = GOOD + '#include "causeway/core/a.h"\n'
        self.assertIn("higher floor", self.check(base__a_h=up))
        side = GOOD + '#include "causeway/worker/a.h"\n'
        self.assertIn("same floor", self.check(proxy__a_h=side))
        self.assertIn("no floor", self.check(nowhere__a_h=GOOD))

    def test_circles(self) -> None:
        a = GOOD + '#include "causeway/base/b.h"\n'
        b = GOOD + '#include "causeway/base/a.h"\n'
        self.assertIn("circular", self.check(base__a_h=a, base__b_h=b))

    def test_banned_words(self) -> None:
        for word in (
            "std::string_view v;",
            "auto t = std::chrono::system_clock::now();",
            "std::rand();",
            "std::this_thread::sleep_for(x);",
            "absl::SleepFor(x);",
            "std::views::iota(1);",
            "#include <format>",
        ):
            self.assertIn("is banned", self.check(base__a_cc="// A file.\n" + word + "\n"), word)
        self.assertEqual("", self.check(base__a_cc='// A file.\nauto s = "std::rand(";\n'))

    def test_first_lines(self) -> None:
        self.assertIn("first line", self.check(base__a_cc="#include <map>\n"))
        self.assertIn("whole sentence", self.check(base__a_cc="// two words\nint x;\n"))
        self.assertIn("pragma once", self.check(base__a_h="// A header.\n"))

    def test_readme_names_what_is_used(self) -> None:
        uses = GOOD + '#include "causeway/wire/a.h"\n'
        self.assertIn("does not name 'wire'", self.check(wire__a_h=GOOD, core__b_h=uses))


if __name__ == "__main__":
    unittest.main()
