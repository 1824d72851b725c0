"""The command line: what it prints, where, with which exit status; and the reading of tables."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from matplotlib import image
from processes import python, words
from pyarrow import parquet

import emcore
from emcore import cli, plot
from emcore.data import faithful
from emcore.data.readers import read_table
from emcore.experiments import ten_steps
from emcore.models import COVARIANCES
from emcore.starts import STARTS

NAMES = ["em", "gradient", "cg", "lbfgs", "auto"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command in a directory of its own, in this process."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(cli.commands(), list(args), prog_name="emcore")


@pytest.fixture
def shell(tmp_path):
    """Run the command in a directory and a process of its own."""
    return partial(python, "-m", "emcore.cli", folder=tmp_path)


def written(folder):
    return sorted(os.listdir(folder))


def table_of(stdout):
    """Return the rows of the table by solver, as words."""
    lines = stdout.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("---"))
    return {line.split()[0]: line.split() for line in lines[rule + 1 : lines.index("", rule)]}


# compare


def test_without_arguments_it_races_on_old_faithful(shell, tmp_path):
    done = shell("compare")
    assert done.returncode == 0
    table = table_of(done.stdout)
    assert list(table) == NAMES
    for row in table.values():
        assert float(row[1]) == pytest.approx(-1130.26396, rel=1e-6)
    assert "Old Faithful" in done.stdout
    assert "Verdict: " in done.stdout
    assert done.stderr == "Picture: race.png\n"
    assert "\x1b" not in done.stdout + done.stderr
    assert written(tmp_path) == ["race.png"]
    pixels = image.imread(tmp_path / "race.png")
    assert min(pixels.shape[:2]) > 500
    assert pixels[..., :3].std() > 0.05


def test_the_same_command_twice_gives_the_same_table(run):
    def without_seconds(stdout):
        return {name: row[:5] + row[6:] for name, row in table_of(stdout).items()}

    first, second = (run("compare", "--no-picture", "--start", "random-points", "--seed", "5") for _ in range(2))
    other = run("compare", "--no-picture", "--start", "random-points", "--seed", "6")
    assert without_seconds(first.stdout) == without_seconds(second.stdout)
    assert without_seconds(first.stdout) != without_seconds(other.stdout)


def test_options_reach_the_race(run, tmp_path):
    done = run(
        "compare", "-k", "3", "-c", "diag", "--solvers", "lbfgs, em", "--start", "random-points", "--seed", "4",
        "--max-passes", "7", "--gain", "1e-3", "--aitken", "1e-2", "--reg", "1e-4", "--threads", "1",
        "--coordinates", "original", "--no-picture", "--no-verdict", "--json", "out.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "Verdict" not in done.stdout
    out = json.loads((tmp_path / "out.json").read_text())
    assert out["model"]["options"] == {"n_components": 3, "covariance": "diag", "reg": 1e-4}
    assert list(out["solvers"]) == ["lbfgs", "em"]
    assert out["options"]["random_state"] == 4
    assert out["options"]["n_threads"] == 1
    assert out["options"]["coordinates"] == "original"
    assert [out["options"]["stop"][name] for name in ("max_passes", "gain", "aitken")] == [7, 1e-3, 1e-2]
    assert out["start"]["how"].startswith("random-points")
    assert written(tmp_path) == ["out.json"]


def test_json_is_strict_and_says_what_the_table_says(run, tmp_path):
    done = run("compare", "--no-picture", "--json", "out.json")

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    out = json.loads((tmp_path / "out.json").read_text(), parse_constant=refuse)
    for name, row in table_of(done.stdout).items():
        assert float(row[1]) == pytest.approx(out["solvers"][name]["log_likelihood"], abs=1e-6)
        assert float(row[3]) == out["solvers"][name]["passes"]
    assert out["data"]["names"] == list(cli.FAITHFUL)
    assert out["verdict"] in " ".join(done.stdout.split())
    assert done.stderr == "JSON: out.json\n"


@pytest.mark.parametrize("extension", [".svg", ".pdf"])
def test_the_picture_takes_the_format_of_its_extension(run, tmp_path, extension):
    assert run("compare", "--solvers", "em", "--no-verdict", "--output", f"p{extension}").exit_code == 0
    assert (tmp_path / f"p{extension}").read_bytes().startswith({".svg": b"<?xml", ".pdf": b"%PDF"}[extension])


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.npy", "t.parquet"])
def test_files_of_all_formats_give_the_same(run, tmp_path, name):
    X = faithful()
    text = {"t.csv": ",", "t.tsv": "\t"}
    if name in text:
        np.savetxt(tmp_path / name, X, delimiter=text[name], header=text[name].join("ab"), comments="")
    elif name == "t.npy":
        np.save(tmp_path / name, X)
    else:
        parquet.write_table(pa.table({"a": X[:, 0], "b": X[:, 1]}), tmp_path / name)
    done = run("compare", name, "--solvers", "em", "--no-picture", "--no-verdict")
    assert done.exit_code == 0, done.stderr
    assert float(table_of(done.stdout)["em"][1]) == pytest.approx(-1130.26396, rel=1e-8)
    assert done.stderr == ""


def test_columns_are_chosen_and_text_is_left_out_and_named(run, tmp_path):
    X = faithful()
    rows = "\n".join(f"{i},{x!r},row{i},{y!r},{x * y!r}" for i, (x, y) in enumerate(X.tolist()))
    (tmp_path / "t.csv").write_text(f"id,a,name,b,c\n{rows}\n")
    done = run("compare", "t.csv", "--columns", "a, b", "--solvers", "em", "--no-picture", "--no-verdict")
    assert float(table_of(done.stdout)["em"][1]) == pytest.approx(-1130.26396, rel=1e-8)
    assert done.stdout.startswith("t.csv: columns a, b\n")
    assert done.stderr == ""
    done = run("compare", "t.csv", "--solvers", "em", "--no-picture", "--no-verdict")
    assert done.stdout.startswith("t.csv: columns id, a, b, c\n")
    assert done.stderr == "Left out, not numeric: name\n"


def test_a_column_is_the_response_of_a_regression(run, tmp_path):
    X = faithful()
    rows = "\n".join(f"{x!r},row,{y!r}" for x, y in X.tolist())
    (tmp_path / "t.csv").write_text(f"a,name,b\n{rows}\n")
    best = emcore.fit(emcore.models.RegressionMixture(2), (X[:, :1], X[:, 1]), random_state=0)
    done = run("fit", "t.csv", "--response", "b", "--output", "m.npz")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("t.csv: response b, columns a\n")
    assert "coefficient of (intercept), a" in done.stdout
    found = emcore.load(tmp_path / "m.npz")
    assert found.value == pytest.approx(best.value, abs=1e-3)
    np.testing.assert_array_equal(found.predict((X[:, :1], X[:, 1])), found.predict((X[:, :1], X[:, 1:])))
    done = run("compare", "t.csv", "--columns", "a", "--response", "b", "--solvers", "em,lbfgs")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("t.csv: response b, columns a\n")
    assert (tmp_path / "race.png").exists()


def test_a_failing_solver_is_no_failure_of_the_race(run, tmp_path):
    (tmp_path / "t.csv").write_text("x\n0\n0\n0\n10\n11\n12\n")
    done = run("compare", "t.csv", "--reg", "0", "--solvers", "em", "--no-picture")
    assert done.exit_code == 0
    assert "failed: collapsed" in done.stdout


def test_a_warning_is_one_line(run, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i % 7},1\n" for i in range(30)))
    done = run("compare", "t.csv", "--no-picture", "--no-verdict", "--solvers", "em")
    assert done.exit_code == 0
    assert done.stderr == "Warning: X is constant in column 1: its variance is fitted at the floor\n"


# Bad input


@pytest.fixture
def files(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,name\n1,2,x\n2,3,y\n3,5,z\n4,4,x\n")
    (tmp_path / "hole.csv").write_text("a,b\n1,2\n3,\n")
    (tmp_path / "inf.csv").write_text("a,b\n1,2\n3,-inf\n")
    (tmp_path / "words.csv").write_text("a,b\nx,y\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("a,b\n")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    (tmp_path / "t.xlsx").write_text("1,2\n")
    (tmp_path / "good.json").write_text('{"weights": [1], "means": [[0, 0]], "covariances": [[[1, 0], [0, 1]]]}')
    (tmp_path / "hole.json").write_text('{"weights": [1,}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "word.json").write_text('{"weights": [1], "means": [["a", 0]]}')
    (tmp_path / "mask.json").write_text('{"weights": [1], "fixed": {"means": [[1, 0]]}}')
    (tmp_path / "some.json").write_text('{"weights": [0.5, 0.5], "means": [[2, 50], [4, 80]]}')
    (tmp_path / "junk.npz").write_text("1,2\n")
    (tmp_path / "junk.npy").write_text("1,2\n")
    (tmp_path / "junk.parquet").write_text("1,2\n")
    np.save(tmp_path / "nan.npy", np.array([[1.0, 2.0], [3.0, np.nan]]))
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "race.png").write_bytes(b"old")
    return tmp_path


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nope.csv"], "nope.csv: cannot be read: No such file or directory"),
        (["folder.csv"], "cannot be read: Is a directory"),
        (["empty.csv"], "empty.csv: the file is empty"),
        (["head.csv"], "head.csv: has no rows"),
        (["words.csv"], "has no numeric column; its columns: 'a' (string), 'b' (string)"),
        (["hole.csv"], "row 1, column 'b' is missing"),
        (["inf.csv"], "row 1, column 'b' is -inf"),
        (["nan.npy", "-k", "1"], "row 1, column 1 is nan"),
        (["ragged.csv"], "Expected 2 columns, got 3"),
        (["t.xlsx"], "the extension must be one of .csv, .tsv, .npy, .parquet"),
        (["junk.npy"], "is not a NPY file"),
        (["junk.parquet"], "cannot be read"),
        (["cube.npy"], "its shape is (2, 2, 2)"),
        (["t.csv", "-k", "5"], "4 rows of positive weight, fewer than the 5 components"),
        (["t.csv", "--columns", "a,zz"], "has no column 'zz'; its columns: a, b, name"),
        (["t.csv", "--columns", "a,name"], "column 'name' is not numeric"),
        (["t.csv", "--columns", "a,a"], "column 'a' is chosen twice"),
        (["t.csv", "--columns", "a,"], "--columns: must be words separated by commas"),
        (["--columns", "a"], "--columns needs a FILE"),
        (["--response", "a"], "--response needs a FILE"),
        (["t.csv", "--response", "zz"], "--response: t.csv has no numeric column 'zz'; its columns: a, b"),
        (["t.csv", "--response", "a", "-c", "full"], "--covariance and --response contradict each other"),
        (["t.csv", "--columns", "a", "--response", "a"], "column 'a' is chosen twice"),
        (["-k", "0"], "0 is not in the range x>=1"),
        (["-k", "two"], "'two' is not a valid integer"),
        (["-c", "round"], "'round' is not one of 'full', 'tied', 'diag', 'spherical'"),
        (["--solvers", "em,foo"], "solver must be one of 'em', 'gradient', "),
        (["--solvers", ""], "--solvers: must be words separated by commas"),
        (["--start", "foo"], "--start: must be one of auto, k-means++, "),
        (["--seed", "-1"], "-1 is not in the range x>=0"),
        (["--max-passes", "0"], "0 is not in the range x>=1"),
        (["--threads", "0"], "0 is not in the range x>=1"),
        (["--gain", "-1"], "-1.0 is not in the range x>=0"),
        (["--gain", "inf"], "gain must be a finite number"),
        (["--reg", "1"], "reg must be below 0.5"),
        (["--coordinates", "polar"], "'polar' is not one of 'free', 'original'"),
        (["--output", "race.bmp"], "must be one of .png, .svg, .pdf, got '.bmp'"),
        (["--output", "no/race.png"], "--output: the directory 'no' does not exist"),
        (["--json", "no/race.json"], "--json: the directory 'no' does not exist"),
        (["--json", "folder.csv"], "--json: 'folder.csv' is a directory"),
        (["--json", "race.png"], "--json: is the same file as --output"),
        (["t.csv", "--json", "t.csv"], "--json: is the same file as FILE"),
        (["--no-picture", "--output", "a.png"], "--output and --no-picture contradict each other"),
        (["--foo"], "No such option"),
        (["t.csv", "hole.csv"], "row 1, column 'b' is missing"),
        (["t.csv", "t.csv"], "FILE: names must differ, got t.csv, t.csv"),
        (["t.csv", "--starts", "0"], "0 is not in the range x>=1"),
        (["--starts", "2", "--no-verdict"], "--no-verdict: there is a verdict of one race only"),
        (["--starts", "2", "--start", "good.json"], "--starts must be 1 when --start is a file"),
        (["--start", "no.json"], "--start: no.json: cannot be read: No such file or directory"),
        (["--start", "hole.json"], "--start: hole.json: is no JSON"),
        (["--start", "list.json"], "--start: list.json: must map names of parameters to arrays"),
        (["--start", "word.json"], "--start: word.json: means must be an array of numbers"),
        (["--start", "mask.json"], "--start: mask.json: fixed means must be true or an array of true and false"),
        (["--start", "some.json"], "missing or unknown: covariances"),
        (["--start", "junk.npz"], "junk.npz is not a saved fit"),
        (["--weights-prior", "0.5"], "0.5 is not in the range x>=1"),
        (["--prior", "0"], "0.0 is not in the range x>0"),
    ],
)
def test_bad_input_is_one_message_and_status_2(run, files, args, words):
    before = written(files)
    done = run("compare", *args)
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stderr.count("Error:") == 1
    assert done.stderr.splitlines()[-1].startswith("Error:")
    assert done.stdout == ""
    assert written(files) == before
    assert (files / "race.png").read_bytes() == b"old"
    assert (files / "t.csv").read_text().startswith("a,b,name")


def test_bad_input_shows_no_traceback_in_a_shell(shell, files):
    done = shell("compare", "t.csv", "-k", "9")
    assert done.returncode == 2
    assert done.stderr == "Left out, not numeric: name\nError: X has 4 rows of positive weight, fewer than the 9 components\n"
    assert done.stdout == ""


def test_a_folder_that_is_not_writable_is_refused_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(cli, "_table", lambda *_: pytest.fail("read before it looked"))
    done = run("compare")
    assert done.exit_code == 2
    assert "--output: the directory '.' is not writable" in done.stderr


def test_a_full_disk_is_status_1_and_leaves_the_old_file(run, tmp_path, monkeypatch):
    (tmp_path / "race.png").write_bytes(b"old")

    def full(figure, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(plot, "save", full)
    done = run("compare", "--solvers", "em", "--no-verdict")
    assert done.exit_code == 1
    assert done.stderr == "Error: race.png: cannot be written: No space left on device\n"
    assert "em" in table_of(done.stdout)
    assert (tmp_path / "race.png").read_bytes() == b"old"


def test_json_is_written_whole_or_not_at_all(run, tmp_path, monkeypatch):
    (tmp_path / "out.json").write_text("old")

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    done = run("compare", "--solvers", "em", "--no-verdict", "--no-picture", "--json", "out.json")
    assert done.exit_code == 1
    assert written(tmp_path) == ["out.json"]
    assert (tmp_path / "out.json").read_text() == "old"


def test_without_matplotlib_the_message_says_what_to_do(run, monkeypatch):
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    done = run("compare")
    assert done.exit_code == 2
    assert "pip install emcore[cli]" in done.stderr
    assert run("compare", "--no-picture", "--solvers", "em", "--no-verdict").exit_code == 0


def test_without_click_there_is_one_line_and_status_2(tmp_path):
    code = "import sys; sys.modules['click'] = None; sys.modules['rich'] = None; from emcore.cli import main; main()"
    done = python("-c", code, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "the command line needs: pip install emcore[cli]\n"


# Help


def test_version(run):
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, f"emcore {emcore.__version__}\n")


def test_help_tells_commands_solvers_defaults_and_examples(run):
    top = run("--help")
    assert top.exit_code == 0
    assert "compare" in top.stdout
    assert "fit" in top.stdout
    for command in ("compare", "fit"):
        text = run(command, "--help").stdout
        flat = " ".join(text.split())
        for name in emcore.solvers.names():
            assert f"\n    {name} " in text
        for word in (*COVARIANCES, *STARTS):
            assert word in flat
        assert "[default: 2; x>=1]" in flat
        assert "Examples:" in text
        assert max(map(len, text.splitlines())) <= 90
    assert "race.png" in run("compare", "--help").stdout


def test_solvers_are_listed_a_line_each(run):
    done = run("solvers")
    assert (done.exit_code, done.stderr) == (0, "")
    named = [line.split()[0] for line in done.stdout.splitlines()[1:] if line[:3].strip()]
    assert named == list(emcore.solvers.names())


def test_config_shows_what_is_installed(run):
    done = run("config")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"emcore {emcore.__version__}" in " ".join(done.stdout.split())
    assert f"target {emcore.kernels.target()}" in " ".join(done.stdout.split())
    assert "config" in run("--help").stdout


@pytest.mark.parametrize(("command", "status", "channel"), [("config", 0, "stdout"), ("compare --no-picture", 2, "stderr")])
def test_a_target_that_is_not_there_is_said_in_words(shell, command, status, channel):
    done = shell(*command.split(), EMCORE_CPU="avx3")
    assert done.returncode == status
    assert "EMCORE_CPU must name a CPU target that runs here, " in getattr(done, channel)
    assert "got 'avx3'" in getattr(done, channel)
    assert "Traceback" not in done.stderr


def test_help_needs_no_extras_but_click(tmp_path):
    code = """
    import sys
    from emcore import cli
    cli.commands()
    print("click" in sys.modules, *{"matplotlib", "rich", "pyarrow", "sklearn", "pandas"} & set(sys.modules))
    """
    assert words(code, folder=tmp_path) == ["True"]


# fit


def test_fit_prints_and_saves(run, tmp_path):
    np.save(tmp_path / "x.npy", faithful())
    done = run("fit", "x.npy", "--solver", "lbfgs", "--seed", "1")
    assert done.exit_code == 0, done.stderr
    assert "Converged" in done.stdout
    assert "log-likelihood -1130.26396" in done.stdout
    assert "0.3558" in done.stdout
    assert done.stderr == "Saved: model.npz\n"
    assert written(tmp_path) == ["model.npz", "x.npy"]
    fit = emcore.load(tmp_path / "model.npz")
    assert fit.log_likelihood == pytest.approx(-1130.26396, rel=1e-8)
    assert fit.solver == "lbfgs"


def test_fit_tells_of_its_starts(run, tmp_path):
    np.save(tmp_path / "x.npy", faithful())
    done = run("fit", "x.npy", "--starts", "3", "--start", "random-points", "--output", "m.npz")
    assert done.exit_code == 0
    assert "of 3 starts reached this optimum" in done.stdout
    assert written(tmp_path) == ["m.npz", "x.npy"]


def test_a_fit_that_runs_out_of_passes_is_saved_with_a_warning(run, tmp_path):
    np.save(tmp_path / "x.npy", faithful())
    done = run("fit", "x.npy", "--max-passes", "3")
    assert done.exit_code == 0
    assert done.stderr == "Warning: Stopped: the budget of passes is used up.\nSaved: model.npz\n"
    assert emcore.load(tmp_path / "model.npz").passes == 3


def test_a_fit_that_breaks_down_is_status_1_and_keeps_the_last_good_parameters(run, tmp_path):
    (tmp_path / "t.csv").write_text("x\n0\n0\n0\n10\n11\n12\n")
    done = run("fit", "t.csv", "--reg", "0")
    assert done.exit_code == 1
    assert "Failed: a component collapsed" in done.stdout
    fit = emcore.load(tmp_path / "model.npz")
    assert fit.status.failed
    assert np.isfinite(fit.log_likelihood)
    assert (fit.params.covariances > 0).all()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "Missing argument 'FILE'"),
        (["t.csv", "--output", "m.txt"], "--output: the extension must be .npz, got '.txt'"),
        (["t.csv", "--output", "no/m.npz"], "--output: the directory 'no' does not exist"),
        (["t.csv", "--solver", "foo"], "solver must be one of"),
        (["t.csv", "--starts", "0"], "0 is not in the range x>=1"),
        (["t.csv", "-k", "9"], "fewer than the 9 components"),
        (["t.csv", "-k", "2", "--reg", "0", "--columns", "a,2"], "column 'name' is not numeric"),
    ],
)
def test_bad_input_of_fit(run, files, args, words):
    before = written(files)
    done = run("fit", *args)
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""
    assert written(files) == before


# reproduce


def test_reproduce_writes_what_it_prints(run, tmp_path):
    done = run("reproduce", "ten-steps", "--quick", "--output", "a/gallery")
    assert done.exit_code == 0, done.stderr
    assert written(tmp_path / "a" / "gallery") == [f"ten-steps{suffix}" for suffix in (".csv", ".json", ".png", ".txt")]
    assert (tmp_path / "a" / "gallery" / "ten-steps.txt").read_text() == done.stdout.removesuffix("\n")
    assert "Written: a/gallery/ten-steps.png" in done.stderr
    assert "Out of tolerance" not in done.stderr
    settings = json.loads((tmp_path / "a" / "gallery" / "ten-steps.json").read_text())["settings"]
    assert settings["grid from 0, points"] == 4001, "not the quick form"


def test_reproduce_names_what_is_not_there(run, tmp_path):
    done = run("reproduce", "ten-steps", "ten-stepz")
    assert done.exit_code == 2
    assert "experiment must be one of 'xu-jordan'" in done.stderr
    assert "'ten-stepz'" in done.stderr
    assert done.stdout == ""
    assert written(tmp_path) == []


def test_reproduce_fails_where_a_number_is_out_of_tolerance(run, monkeypatch):
    monkeypatch.setattr(ten_steps, "STEPS", 9)
    done = run("reproduce", "ten-steps", "--quick")
    assert done.exit_code == 1
    assert "OUT OF TOLERANCE" in done.stdout
    assert "Out of tolerance: ten-steps\n" in done.stderr


# Several starts and files, priors, fixed parameters


def test_several_starts_are_a_study(run, tmp_path):
    how = "--starts", "3", "--start", "random-points", "--seed", "4"
    done = run("compare", "--solvers", "em,lbfgs", *how, "--json", "s.json")
    assert (done.exit_code, done.stderr) == (0, "Picture: study.png\nJSON: s.json\n")
    table = table_of(done.stdout)
    out = json.loads((tmp_path / "s.json").read_text())
    rows = {row["solver"]: row for row in out["problems"]["Old Faithful"]["solvers"]}
    assert list(table) == list(rows) == ["em", "lbfgs"]
    for solver, row in table.items():
        assert row[1] == f"{rows[solver]['reached']}/3"
    assert out["options"]["stop"]["gain"] == 1e-13
    assert out["data"] == [{"file": "Old Faithful", "names": list(cli.FAITHFUL), "left_out": []}]
    assert image.imread(tmp_path / "study.png").ndim == 3


def test_several_files_and_all_solvers(run, tmp_path):
    rng = np.random.default_rng(0)
    for i, name in enumerate(("a.csv", "b.csv")):
        rows = np.concatenate([rng.normal(0, 1, size=12), rng.normal(5 + i, 1, size=12)])
        (tmp_path / name).write_text("x\n" + "".join(f"{x}\n" for x in rows))
    done = run("compare", "a.csv", "b.csv", "-c", "tied", "--solvers", "all", "--no-picture", "--max-passes", "40")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    (matrix,) = [i for i, line in enumerate(lines) if line.startswith("reached, %")]
    assert lines[matrix].split()[2:] == ["a.csv", "b.csv"]
    assert [line.split()[0] for line in lines[matrix + 2 :]] == list(emcore.solvers.names())
    assert "a.csv: GaussianMixture(n_components=2, covariance='tied'" in done.stdout


def test_priors_reach_the_model(run, tmp_path):
    priors = "--prior", "0.01", "--weights-prior", "2"
    done = run("compare", "--solvers", "em,lbfgs", "--no-picture", *priors, "--json", "out.json")
    assert done.exit_code == 0, done.stderr
    assert "a gap is of log-likelihood and log prior together" in done.stdout
    options = json.loads((tmp_path / "out.json").read_text())["model"]["options"]
    assert options["weights_prior"] == {"prior": "Dirichlet", "concentration": 2.0}
    X = faithful()
    assert options["prior"]["prior"] == "NormalInverseWishart"
    np.testing.assert_allclose(options["prior"]["mean"], X.mean(axis=0))
    np.testing.assert_allclose(options["prior"]["scale"], np.cov(X.T) / 2)
    assert (options["prior"]["dof"], options["prior"]["strength"]) == (4.0, 0.01)
    for covariance in COVARIANCES:
        np.savetxt(tmp_path / "t.csv", X, delimiter=",", header="a,b", comments="")
        done = run("fit", "t.csv", "-c", covariance, *priors)
        assert done.exit_code == 0, done.stderr
        assert emcore.load(tmp_path / "model.npz").model.has_prior


def test_a_start_from_a_file_and_what_it_fixes(run, tmp_path):
    np.savetxt(tmp_path / "t.csv", faithful(), delimiter=",", header="a,b", comments="")
    start = {"weights": [0.4, 0.6], "means": [[2.1, 55.0], [4.4, 80.0]], "covariances": [np.eye(2).tolist()] * 2}
    mask = [[True, True], [False, False]]
    (tmp_path / "s.json").write_text(json.dumps(start | {"fixed": {"weights": True, "means": mask}}))
    done = run("fit", "t.csv", "--start", "s.json")
    assert done.exit_code == 0, done.stderr
    first = emcore.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(first.params.weights, start["weights"])
    np.testing.assert_array_equal(first.params.means[0], start["means"][0])
    assert abs(first.params.means[1] - start["means"][1]).min() > 1e-3
    done = run("compare", "t.csv", "--solvers", "em,lbfgs", "--start", "s.json", "--no-picture", "--json", "out.json")
    assert done.exit_code == 0, done.stderr
    for fit in json.loads((tmp_path / "out.json").read_text())["solvers"].values():
        np.testing.assert_array_equal(fit["params"]["weights"], start["weights"])
    done = run("fit", "t.csv", "--start", "model.npz", "--output", "second.npz")
    assert done.exit_code == 0, done.stderr
    second = emcore.load(tmp_path / "second.npz")
    assert second.value > first.value  # nothing is fixed any longer
    done = run("fit", "t.csv", "--start", "second.npz", "--output", "third.npz")
    assert emcore.load(tmp_path / "third.npz").steps == 0  # it was there


# A terminal


def at_a_terminal(args, folder, interrupt=False):
    """Run the command with standard error on a terminal; return exit status, standard output, what the terminal got."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    how = {"cwd": folder, "env": env, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": theirs}

    def heed():  # a job in the background inherits that SIGINT is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen([sys.executable, "-m", "emcore.cli", *args], preexec_fn=heed, **how) as process:
        os.close(theirs)
        shown, sent, deadline = b"", False, time.monotonic() + 120
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    got = os.read(ours, 1 << 16)
                except OSError:  # how Linux says that the other end is closed
                    break
                if not got:
                    break
                shown += got
            if interrupt and not sent and b"passes" in shown:
                process.send_signal(signal.SIGINT)
                sent = True
        else:
            process.kill()
            pytest.fail("it never ended")
        stdout = process.stdout.read().decode()
        os.close(ours)
    return process.returncode, stdout, shown.decode()


def test_progress_is_shown_on_a_terminal_and_wiped(tmp_path):
    status, stdout, shown = at_a_terminal(["compare", "--solvers", "em,cg"], tmp_path)
    assert status == 0
    assert "\x1b" not in stdout
    for word in ("em", "cg", "passes", "log-likelihood", "gain", "measuring how fast"):
        assert word in shown
    assert shown.rstrip().endswith("Picture: race.png")
    assert "\x1b[?25h" in shown  # the cursor is back


@pytest.fixture
def endless(tmp_path):
    """Data and options with which EM does not end."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(60_000, 3)))
    return ["x.npy", "-k", "6", "--gain", "0", "--max-passes", "1000000", "--start", "random-points"]


def test_ctrl_c_prints_what_was_reached(endless, tmp_path):
    status, stdout, shown = at_a_terminal(["compare", *endless], tmp_path, interrupt=True)
    assert status == 130
    table = table_of(stdout)
    assert table["em"][-1] == "interrupted"
    assert float(table["em"][3]) >= 1
    assert table["lbfgs"][-2:] == ["not", "run"]
    assert "Traceback" not in stdout + shown
    assert image.imread(tmp_path / "race.png").ndim == 3


def test_ctrl_c_of_a_fit_saves_what_was_reached(endless, tmp_path):
    status, stdout, shown = at_a_terminal(["fit", *endless], tmp_path, interrupt=True)
    assert status == 130
    assert "Interrupted" in stdout
    assert "Traceback" not in stdout + shown
    assert emcore.load(tmp_path / "model.npz").status is emcore.Status.INTERRUPTED


def test_ctrl_c_before_anything_was_reached(run, monkeypatch):
    def struck(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_table", struck)
    done = run("compare", "--no-picture")
    assert done.exit_code == 130
    assert done.stderr == "Interrupted.\n"


# Tables


def read(folder, name, content, columns=None):
    path = folder / name
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return read_table(path, columns)


@pytest.mark.parametrize(
    ("content", "columns", "X", "names", "left_out"),
    [
        ("a,b\n1,2.5\n3,4\n", None, [[1, 2.5], [3, 4]], ("a", "b"), ()),
        ("1,2.5\n3,4\n", None, [[1, 2.5], [3, 4]], ("0", "1"), ()),
        ("-1e3,2\n", ["1"], [[2]], ("1",), ()),
        ("a,b\r\n1,2\r\n", None, [[1, 2]], ("a", "b"), ()),
        ("a, b\n1, 2\n", ["b", "a"], [[2, 1]], ("b", "a"), ()),
        ("a,s,b\n1,x,2\n", None, [[1, 2]], ("a", "b"), ("s",)),
        ("a,s,b\n1,x,2\n", [2], [[2]], ("b",), ()),
        ('"a,1",b\n1,2\n', None, [[1, 2]], ("a,1", "b"), ()),
        (b"\xef\xbb\xbfa,b\n1,2\n", ["a"], [[1]], ("a",), ()),
        (',a\n"1",5\n"2",7\n', None, [[5], [7]], ("a",), ("0",)),
        (",a\n0,5\n1,7\n", None, [[5], [7]], ("a",), ("0",)),
        (",a\n0,5\n1,7\n", [0, 1], [[0, 5], [1, 7]], ("0", "a"), ()),
        (",a\n0,5\n5,7\n", None, [[0, 5], [5, 7]], ("0", "a"), ()),
        (",a\n4,5\n5,7\n", None, [[4, 5], [5, 7]], ("0", "a"), ()),
        (b"\xef\xbb\xbf1,2\n3,4\n", None, [[1, 2], [3, 4]], ("0", "1"), ()),
        ("a,b,\n1,2,\n3,4,\n", None, [[1, 2], [3, 4]], ("a", "b"), ("2",)),
        ("2,1\n0,5\n", ["1"], [[1], [5]], ("1",), ()),
        ("b,0\n7,8\n", ["0"], [[8]], ("0",), ()),
    ],
)
def test_text_tables(tmp_path, content, columns, X, names, left_out):
    table = read(tmp_path, "t.csv", content, columns)
    assert table.X.tolist() == X
    assert table.X.dtype == np.float64
    assert (table.names, table.left_out) == (names, left_out)


def test_a_column_that_turns_out_to_hold_fractions(tmp_path):
    table = read(tmp_path, "t.csv", "a,b\n" + "1,1\n" * 400_000 + "0.5,2\n")
    assert table.X.shape == (400_001, 2)
    assert table.X[-1].tolist() == [0.5, 2.0]


def test_a_column_with_one_word_far_down_is_left_out_or_named(tmp_path):
    content = "a,b\n" + "1,1\n" * 400_000 + "oops,2\n"
    assert read(tmp_path, "t.csv", content).left_out == ("a",)
    with pytest.raises(ValueError, match="column 'a' is not numeric, it holds string: row 400000 is 'oops'"):
        read_table(tmp_path / "t.csv", ["a"])


@pytest.mark.parametrize(
    ("content", "columns", "words"),
    [
        ("a,b\n1,NA\n2,\n3,4\n", None, "row 0, column 'b' is missing; 1 more in this column"),
        ("a,b\n1,2\n3,1e999\n", None, "row 1, column 'b' is inf"),
        ("a,a\n1,2\n", ["a"], "2 columns are named 'a'"),
        ("a,b\n1,2\n", [2], "has no column 2"),
        ("a,b\n1,2\n", [-1], "has no column -1"),
        ("a,b\n1,2\n", [True], "has no column True"),
        ("a,b\n1,2\n", [], "columns is empty"),
        ("\n\n", None, "has no rows"),
        ("a;b\n1;2\n", None, "no numeric column; its columns: 'a;b'"),
        (b"\xff\xfe\x00\n\x80\x00\n", None, "t.csv: "),
    ],
)
def test_text_tables_that_are_refused(tmp_path, content, columns, words):
    with pytest.raises(ValueError, match=words):
        read(tmp_path, "t.csv", content, columns)


def test_parquet_keeps_float32_only_where_all_is(tmp_path):
    columns = {
        "a": pa.array([1, 2], pa.float32()), "b": pa.array([3, 4], pa.float32()), "i": pa.array([5, 6], pa.int16()),
        "s": pa.array(["x", "y"]), "t": pa.array([True, False]),
    }  # fmt: skip
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert (table.X.dtype, table.names, table.left_out) == (np.float64, ("a", "b", "i"), ("s", "t"))
    assert table.X.tolist() == [[1, 3, 5], [2, 4, 6]]
    table = read_table(tmp_path / "t.parquet", ["b", "a"])
    assert (table.X.dtype, table.X.tolist()) == (np.float32, [[3, 1], [4, 2]])
    with pytest.raises(ValueError, match="column 't' is not numeric, it holds bool"):
        read_table(tmp_path / "t.parquet", ["t"])


def test_parquet_with_holes_and_repeated_names(tmp_path):
    parquet.write_table(pa.table({"a": [1.0, None]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="row 1, column 'a' is missing"):
        read_table(tmp_path / "t.parquet")
    twice = pa.Table.from_arrays([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"])
    parquet.write_table(twice, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", [1]).X.tolist() == [[3], [4]]


def test_npy_is_mapped_not_read(tmp_path):
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "x.npy", X)
    table = read_table(tmp_path / "x.npy")
    assert isinstance(table.X, np.memmap)
    assert (table.X.dtype, table.names) == (np.float32, ("0", "1", "2"))
    with pytest.raises(ValueError, match="read-only"):
        table.X[0, 0] = 1.0
    even = read_table(tmp_path / "x.npy", [0, 2])
    assert isinstance(even.X, np.memmap)
    assert np.shares_memory(even.X, even.X.base)
    assert even.X.tolist() == X[:, [0, 2]].tolist()
    back = read_table(tmp_path / "x.npy", ["2", "0", "1"])
    assert (back.X.tolist(), back.names) == (X[:, [2, 0, 1]].tolist(), ("2", "0", "1"))
    np.save(tmp_path / "x.npy", np.arange(3))
    assert read_table(tmp_path / "x.npy").X.tolist() == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([{}], dtype=object), "not a NPY file of numbers"),
        (np.array(["a"]), "no numeric column: it holds <U1"),
        (np.ones(3, dtype=complex), "no numeric column: it holds complex128"),
        (np.empty((0, 2)), r"its shape is \(0, 2\)"),
        (np.float64(3), r"its shape is \(\)"),
    ],
)
def test_npy_that_is_refused(tmp_path, array, words):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=words):
        read_table(tmp_path / "x.npy")


def test_without_pyarrow_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"\.csv files needs pyarrow: pip install emcore\[cli\]"):
        read(tmp_path, "t.csv", "a\n1\n")
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    assert read_table(tmp_path / "x.npy").X.shape == (2, 2)
