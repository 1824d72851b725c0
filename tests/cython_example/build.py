"""Compiles the examples beside this file into a directory: ``python build.py <directory>``."""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import emcore

here, there = Path(__file__).parent, Path(sys.argv[1])
packages = Path(emcore.__file__).parents[1]  # where `from emcore.kernels._base cimport ...` finds its .pxd
FAST = [] if os.name == "nt" else ["-O0", "-g0"]  # to compile, not to run
extensions = []
for name, source in (("exponential_kernel", "exponential.pyx"), ("elementary", "elementary.pyx")):
    (there / source).write_text((here / source).read_text())
    extensions.append(Extension(name, [source], include_dirs=[emcore.get_include()], extra_compile_args=FAST))
os.chdir(there)
setup(
    name="emcore-examples",
    ext_modules=cythonize(extensions, include_path=[str(packages)], language_level=3, compiler_directives={"cdivision": True}),
    script_args=["--quiet", "build_ext", "--inplace", "--parallel=2"],
)
