"""What the installation says of itself."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import scipy
from processes import fresh

import emcore
from emcore import kernels


def test_dicts_say_what_is_so(target):
    found = emcore.show_config(mode="dicts")
    assert found["versions"]["emcore"] == emcore.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["scipy"] == scipy.__version__
    assert found["cpu"]["target"] == target
    assert found["cpu"]["runs"] == kernels.targets()
    assert found["cpu"]["float32 lanes"] == kernels.single_lanes()
    assert found["threads"]["openmp"] == kernels.threaded()
    assert found["interface"]["abi"] == kernels.abi()
    assert (Path(found["interface"]["include"]) / "emc.h").is_file()
    assert found["build"]["compiler"]
    assert json.loads(json.dumps(found)) == found


def test_it_prints_the_same(capsys):
    assert emcore.show_config() is None
    printed = " ".join(capsys.readouterr().out.split())
    found = emcore.show_config("dicts")
    assert f"compiler {found['build']['compiler']}" in printed
    assert f"abi {kernels.abi()}" in printed
    assert "baseline yes" in printed
    assert all(title in printed for title in found)


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="mode must be one of 'stdout', 'dicts', got 'yaml'"):
        emcore.show_config("yaml")


def said(code, **environment):
    """Return what a fresh process says of its CPU target and threads after some code."""
    unset = dict.fromkeys(name for name in os.environ if name.startswith(("EMCORE_", "OMP_")))
    code = f"import emcore, json, sys\n{code}\nfound = emcore.show_config('dicts')\nfound['scipy'] = 'scipy' in sys.modules"
    return json.loads(fresh(f"{code}\nprint(json.dumps(found))", **unset | environment))


def test_how_the_target_was_chosen():
    best = next(name for name, runs in kernels.targets().items() if runs)
    found = said("")
    assert (found["cpu"]["target"], found["cpu"]["chosen by"]) == (best, "the best that runs here")
    assert found["cpu"]["EMCORE_CPU"] is None
    assert found["threads"]["default"] >= 1
    assert not found["scipy"]
    found = said("", EMCORE_CPU="baseline", EMCORE_NUM_THREADS="3")
    assert (found["cpu"]["target"], found["cpu"]["chosen by"]) == ("baseline", "EMCORE_CPU")
    assert found["cpu"]["EMCORE_CPU"] == "baseline"
    assert (found["threads"]["default"], found["threads"]["EMCORE_NUM_THREADS"]) == (3, "3")
    if best != "baseline":
        assert said("emcore.kernels.select_target('baseline')")["cpu"]["chosen by"] == "select_target"


def test_a_target_that_is_not_there_is_shown_in_words():
    found = said("", EMCORE_CPU="avx3")
    assert (found["cpu"]["target"], found["cpu"]["EMCORE_CPU"]) == (None, "avx3")
    assert found["cpu"]["chosen by"].startswith("EMCORE_CPU must name a CPU target that runs here, ")
    assert "'baseline'" in found["cpu"]["chosen by"]
    assert found["cpu"]["chosen by"].endswith(", got 'avx3'")
    found = said("emcore.kernels.select_target('baseline')", EMCORE_CPU="avx3")
    assert found["cpu"]["target"] == "baseline"


@pytest.mark.parametrize("mode", ["dicts", "stdout"])
def test_a_bad_number_of_threads_is_shown_in_words(mode, monkeypatch, capsys):
    monkeypatch.setenv("EMCORE_NUM_THREADS", "many")
    words = "EMCORE_NUM_THREADS must be a whole number >= 1, got 'many'"
    found = emcore.show_config(mode)
    if mode == "dicts":
        assert (found["threads"]["default"], found["threads"]["EMCORE_NUM_THREADS"]) == (words, "many")
    else:
        assert words in capsys.readouterr().out
