"""Marks the wheel as holding machine code that fits every CPython from 3.11 on (stable ABI)."""

from setuptools import Distribution, setup


class BinaryDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(distclass=BinaryDistribution, options={"bdist_wheel": {"py_limited_api": "cp311"}})
