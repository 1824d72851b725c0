"""What compiled code of others relies on, and `golden_interface.txt`, which holds what was promised.

That is what stands in `emc.h` and in `_base.pxd`, the C functions that modules hand out, and how structs and classes lie in
memory, on a 64-bit machine.

    python tests/interface.py

writes that file anew after something was added. It refuses when something promised has changed and `EMC_ABI` has not.
"""

import ctypes
import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADER = ROOT / "src_c" / "emc.h"
DECLARED = ROOT / "emcore" / "kernels" / "_base.pxd"
GOLDEN = Path(__file__).parent / "golden_interface.txt"


def one_space(text):
    return " ".join(text.split())


def fields(text):
    """Return one declaration for each field: ``int a, *b`` is ``int a`` and ``int *b``."""
    if "(" in text:
        return [one_space(text)]
    first, *others = one_space(text).split(", ")
    kind = re.match(r"(.*?)[* ]*\w+$", first)[1]
    return [first, *(f"{kind} {other}" for other in others)]


def field_name(declaration):
    return (re.search(r"\(\*(\w+)\)", declaration) or re.search(r"(\w+)$", declaration))[1]


def compiler():
    """Return the C compiler that extensions are built with, or None."""
    return shutil.which((sysconfig.get_config_var("CC") or "cl").split()[0])


def all_of(pattern, text, starts):
    """Return the matches of a pattern, which must be as many as those of how such things start, and some."""
    found, begun = re.findall(pattern, text, flags=re.M | re.S), re.findall(starts, text, flags=re.M)
    if not found or len(found) != len(begun):
        raise ValueError(f"{len(found)} of {len(begun)} are understood: {begun}")
    return found


def in_header(text=None):
    """Return what emc.h, or another text, declares: section -> lines in order. Nothing that it begins with is passed over."""
    header = re.sub(r"/\*.*?\*/", "", HEADER.read_text() if text is None else text, flags=re.S)
    found = {}
    for name, body in all_of(r"^typedef struct (\w+) \{([^{}]*)\} \1;", header, r"^.*\bstruct\b.*\{"):
        found[f"struct {name}"] = [line for part in body.split(";") if part.strip() for line in fields(part)]
    for name, body in all_of(r"^enum (\w+) \{([^{}]*)\};", header, r"^.*\benum\b.*\{"):
        found[f"enum {name}"] = [one_space(part) for part in body.split(",") if part.strip()]
    defines = (one_space(define) for define in all_of(r"^#define (EMC_[^\n]*[^\n\\])$", header, r"^# *define\b.*"))
    found["defines"] = [define for define in defines if define != "EMC_H"]
    # A function begins a line, and no line but a function's has a parenthesis behind a name there.
    functions = all_of(r"^(\w[\w* ]*\w\([^;{}]*?\))\s*[;{]", header, r"^\w.*\(.*")
    found["functions emc.h"] = [one_space(function) for function in functions]
    return found


def declared(text=None):
    """Return what `_base.pxd`, or another text, declares but for its copy of emc.h: section -> lines in order."""
    text = re.sub(r'""".*?"""', "", DECLARED.read_text() if text is None else text, flags=re.S)
    text = re.sub(r",\s*\n\s+", ", ", re.sub(r"#.*", "", text))
    functions = all_of(r"^cdef (?!class\b|extern\b)([^\n]*?):?$", text, r"^(?!cdef (?:class|extern)\b)\w.*")
    found = {"functions _base.pxd": [one_space(function) for function in functions]}
    for name, body in all_of(r"^cdef class (\w+(?:\(\w+\))?):\n((?:(?:    [^\n]*)?\n)+)", text, r"^cdef class\b.*"):
        found[f"class {name}"] = [one_space(line) for line in body.splitlines() if line.strip()]
    return found


def structs_of_pxd():
    """Return the structs of `_base.pxd`'s copy of emc.h, in C's words: name -> fields in order."""
    text = re.sub(r",\s*\n\s+", ", ", re.sub(r"#.*", "", DECLARED.read_text())).replace("Py_ssize_t", "ptrdiff_t")
    found = {}
    for name, body in all_of(r"^    ctypedef struct (\w+):\n((?:        [^\n]*\n)+)", text, r"^.*\bstruct\b.*:$"):
        lines = [line.strip().removesuffix(" noexcept nogil") for line in body.splitlines()]
        found[name] = [field for line in lines for field in fields(line)]
    return found


def capsules():
    """Return the C functions that the compiled modules hand to others, and their signatures."""
    import emcore.kernels

    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    found = []
    for module in sorted(m.name for m in pkgutil.iter_modules(emcore.kernels.__path__)):
        functions = getattr(importlib.import_module(f"emcore.kernels.{module}"), "__pyx_capi__", {})
        found += [f"{module}.{name} {name_of(capsule).decode()}" for name, capsule in functions.items()]
    return found


def class_sizes():
    """Return the sizes of classes in bytes, their head apart: on 64-bit machines."""
    import emcore.kernels

    classes = [re.search(r"class (\w+)", section)[1] for section in declared() if section.startswith("class ")]
    head = object.__basicsize__
    return [f"{name} {getattr(emcore.kernels, name).__basicsize__ - head}" for name in classes]


def struct_layout():
    """Return sizes and offsets of structs in bytes, which a C compiler tells: on 64-bit machines."""
    structs = {name: lines for name, lines in in_header().items() if name.startswith("struct ")}
    names = {name.removeprefix("struct "): [field_name(f) for f in lines] for name, lines in structs.items()}
    lines = [f'printf("%zu\\n", sizeof({name}));' for name in names]
    lines += [f'printf("%zu\\n", offsetof({name}, {field}));' for name in names for field in names[name]]
    program = '#include "emc.h"\n#include <stdio.h>\nint main(void) {\n' + "\n".join(lines) + "\nreturn 0;\n}\n"
    with tempfile.TemporaryDirectory() as directory:
        source, out = Path(directory, "layout.c"), Path(directory, "layout")
        source.write_text(program)
        subprocess.run([compiler(), f"-I{HEADER.parent}", str(source), "-o", str(out)], check=True)
        numbers = iter(subprocess.run([str(out)], check=True, capture_output=True, text=True).stdout.split())
    found = {"sizes of structs": [f"{name} {next(numbers)}" for name in names]}
    for name in names:
        found[f"offsets {name}"] = [f"{field} {next(numbers)}" for field in names[name]]
    return found


def in_words():
    """Return what sources and modules say, without sizes: section -> lines in order."""
    return in_header() | declared() | {"capsules": capsules()}


def interface():
    """Return the whole of it: section -> lines in order."""
    return in_words() | struct_layout() | {"sizes of classes": class_sizes()}


def golden():
    """Return what was promised."""
    sections, name = {}, None
    for line in GOLDEN.read_text().splitlines():
        if line.startswith("["):
            name = line[1:-1]
            sections[name] = []
        elif line:
            sections[name].append(line)
    return sections


def broken(then, now):
    """Return the sections in which a promise is broken.

    Structs, enums and lists of functions grow at their end only. Classes do not change at all: a subclass compiled before has
    their fields and virtual tables built in, and Cython does not check tables: a method that moves, or one more, calls a
    wrong pointer.
    """
    found = []
    for name, lines in then.items():
        new = now.get(name, [])
        if name == "sizes of structs":
            holds = all(int(a.split()[1]) <= int(b.split()[1]) for a, b in zip(lines, new, strict=False))
        elif name.startswith(("class ", "sizes of classes")):
            holds = new == lines
        else:
            holds = new[: len(lines)] == lines
        if not holds or len(new) < len(lines):
            found.append(name)
    return found


def abi(sections):
    return next(line for line in sections["defines"] if line.startswith("EMC_ABI "))


def write():
    if compiler() is None:
        sys.exit("There is no C compiler, which tells how structs lie in memory.")
    then, now = golden(), interface()
    if abi(then) == abi(now) and (names := broken(then, now)):
        sys.exit(f"A promise is broken in {', '.join(names)}: take it back, or raise EMC_ABI.")
    GOLDEN.write_text("\n".join(f"[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in now.items()))


if __name__ == "__main__":
    write()
