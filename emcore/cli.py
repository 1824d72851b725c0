"""The command line: ``emcore compare`` races solvers, from one start or many, ``emcore fit`` fits and saves, ``emcore solvers``
lists what can be asked for by name, ``emcore reproduce`` redoes experiments, ``emcore config`` says what is installed.

Standard output gets results only; warnings, progress and messages go to standard error. Files are written whole or not at all.
Exit status: 0; 1 where the numbers broke or a file could not be written; 2 for bad input; 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emcore import solvers as registry
from emcore.compare import ALL, SOLVERS
from emcore.config import show_config
from emcore.data import as_source, faithful
from emcore.data.readers import EXTENSIONS, Table, read_table
from emcore.files import check_writable, replacing
from emcore.models import COVARIANCES, Dirichlet, GaussianMixture, RegressionMixture, fraley_raftery
from emcore.result import Status, Stop
from emcore.starts import STARTS

if TYPE_CHECKING:
    import click

    from emcore.compare import Comparison
    from emcore.fit import Fit
    from emcore.models import Model
    from emcore.solve import Step
    from emcore.study import Study

__all__ = ["commands", "main"]

FAITHFUL = ("eruption (minutes)", "waiting time (minutes)")
INTERRUPTED = 130  # 128 + SIGINT, as shells count
DELAY, REFRESH = 0.5, 0.1  # seconds until progress is shown, and between two updates
SHOWN = 12  # components and columns printed of a fit
PRIOR_ROWS = 100_000  # a prior that is made of the data looks at a sample of so many rows
RACE, STUDY = "race.png", "study.png"


def main() -> None:
    """Run the command line; what the console script ``emcore`` calls."""
    try:
        import click  # noqa: F401
    except ImportError:
        print("the command line needs: pip install emcore[cli]", file=sys.stderr)
        raise SystemExit(2) from None
    commands().main(prog_name="emcore")


def commands() -> click.Group:
    """Return the command ``emcore`` with its subcommands."""
    import click

    from emcore import __version__, experiments

    def option(*names: str, **how: Any) -> click.Option:
        how.setdefault("show_default", how.get("default") is not None)
        return click.Option(names, **how)

    whole, tolerance, path = click.IntRange, click.FloatRange(min=0), click.Path(path_type=Path)
    data = [
        option("-k", "--components", type=whole(1), metavar="K", default=2, help="Number of components."),
        option("-c", "--covariance", type=click.Choice(COVARIANCES), default="full",
               help="One matrix a component, one for all, variances, or one variance a component."),
        option("--columns", metavar="A,B,...", show_default="all numeric ones",
               help="Columns to use, by name or index from 0."),
        option("--response", metavar="NAME",
               help="Column that is the response of a mixture of linear regressions on the others."),
        option("--reg", type=tolerance, metavar="X", default=1e-6,
               help="Floor of the covariances, relative to the variances of the columns; 0 for none."),
        option("--prior", type=click.FloatRange(min=0, min_open=True), metavar="X", show_default="none",
               help="Fraley and Raftery's prior of means and covariances, its means worth X rows; theirs: 0.01."),
        option("--weights-prior", type=click.FloatRange(min=1), metavar="A", show_default="none",
               help="Dirichlet prior of the weights: A - 1 rows seen before in each component."),
    ]  # fmt: skip
    climb = [
        option("--start", default="auto", metavar="NAME|FILE",
               help=f"How to start: {', '.join(STARTS)}; auto is k-means++ where scikit-learn is installed, else "
               "random-points. Or a file: .npz that fit wrote, or .json with weights, means and covariances, and where wanted "
               "\"fixed\": {name: true, or an array of true and false} for what shall not move."),
        option("--seed", type=whole(0), metavar="N", default=0, help="Seed of the start."),
        option("--gain", type=tolerance, metavar="X", show_default="1e-12; compare from several starts 1e-13",
               help="Stop when the rise of the log-likelihood per row that one EM step is sure of is at most this."),
        option("--aitken", type=tolerance, metavar="X", default=0.0,
               help="Stop when the rise still to come per row, by Aitken's estimate, is at most this; 0 for off."),
        option("--threads", type=whole(1), metavar="N",
               show_default="all CPUs", help="Threads of a pass; the result does not depend on it."),
        option("--coordinates", type=click.Choice(("free", "original")), default="free",
               help="What gradient solvers move in: unconstrained coordinates, or the parameters themselves."),
    ]  # fmt: skip
    compare = click.Command(
        "compare",
        callback=_guarded(_compare),
        params=[
            click.Argument(["files"], nargs=-1, type=path, metavar="[FILE]..."),
            *data,
            option("--solvers", metavar="A,B,...|all", default=",".join(SOLVERS), help="Solvers to race, by name."),
            *climb,
            option("--starts", "n_starts", type=whole(1), metavar="N", default=1, help="From how many starts to climb."),
            option("--max-passes", type=whole(1), metavar="N", default=1000, help="Budget of each solver, in passes."),
            option("-o", "--output", type=path, metavar="FILE", show_default=f"{RACE}, of several starts or files {STUDY}",
                   help="Picture to write: .png, .svg or .pdf."),
            option("--no-picture", is_flag=True, help="Write no picture."),
            option("--json", "json_path", type=path, metavar="FILE",
                   help="Write everything, traces of a race too, as JSON."),
            option("--no-verdict", is_flag=True, help="Skip the verdict, and the passes over the data that it takes."),
        ],
        short_help="Race solvers, from one start or many; print tables, write a picture.",
        help=(
            "Race solvers from the same start on the same data: print one table and a verdict in plain words, and write a "
            "picture.\n\nFrom several starts, or on several files, print how often and how fast each solver reached the best "
            "optimum known.\n\nFILE is a table of numbers (" + ", ".join(EXTENSIONS) + "); columns that are not numeric are "
            "left out and named. Without FILE, the Old Faithful geyser data.\n\n\b\n" + _solver_list()
        ),
        epilog=(
            "\b\nExamples:\n  emcore compare\n  emcore compare iris.csv -k 3 --solvers em,cg,lbfgs --output iris.pdf\n"
            "  emcore compare rows.npy -k 8 -c diag --start random-points --seed 7 --json race.json\n"
            "  emcore compare a.csv b.csv -k 3 --starts 20 --solvers all"
        ),
    )  # fmt: skip
    fit = click.Command(
        "fit",
        callback=_guarded(_fit),
        params=[
            click.Argument(["file"], required=True, type=path),
            *data,
            option("--solver", default="auto", metavar="NAME", help="Solver, by name."),
            *climb,
            option("--starts", "n_starts", type=whole(1), metavar="N", default=1, help="How many starts to climb from."),
            option("--max-passes", type=whole(1), metavar="N", default=10_000, help="Budget of each climb, in passes."),
            option("-o", "--output", type=path, metavar="FILE", default="model.npz", help="File to save in: .npz."),
        ],
        short_help="Fit a model, print the result and save it.",
        help=(
            "Fit a model to the rows of FILE (" + ", ".join(EXTENSIONS) + "), print how it ended and save it; "
            "emcore.load reads it.\n\nWhere the numbers break, the last good parameters are saved all the same, with the "
            "reason inside, and the exit status is 1.\n\n\b\n" + _solver_list()
        ),
        epilog=(
            "\b\nExamples:\n  emcore fit iris.csv -k 3 --starts 10 --output iris.npz\n"
            "  emcore fit rows.parquet -k 5 -c tied --columns height,weight --solver lbfgs\n"
            "  emcore fit iris.csv -k 3 --weights-prior 2 --prior 0.01 --start iris.npz"
        ),
    )
    reproduce = click.Command(
        "reproduce",
        callback=_guarded(_reproduce),
        params=[
            click.Argument(["names"], nargs=-1, metavar="[NAME]..."),
            option(
                "-o", "--output", type=path, metavar="FOLDER", default="out/reproduce", help="Where to write; made if missing."
            ),
            option("--quick", is_flag=True, help="Fewer trials and sizes: some seconds each."),
        ],
        short_help="Redo the papers' experiments: tables, pictures, settings.",
        help=(
            "Redo experiments of the papers, all of them by default. Each prints a table of its numbers beside their "
            "references, and writes it with a picture and its settings.\n\n\b\n" + _listing("Experiments:", experiments.names())
        ),
        epilog="\b\nExamples:\n  emcore reproduce --quick\n  emcore reproduce accelerators xu-jordan --output gallery",
    )
    config = click.Command(
        "config",
        callback=_guarded(_show_config),
        help="Show versions, the CPU target in force, threads and how this was built: where a bug report should begin.",
        short_help="Show versions, CPU target, threads and build.",
    )
    listing = click.Command(
        "solvers",
        callback=_guarded(_show_solvers),
        help="List the solvers that --solver and --solvers name.",
        short_help="List the solvers, a line each.",
    )
    return click.Group(
        "emcore",
        commands=[compare, fit, listing, reproduce, config],
        params=[_version_option(__version__)],
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        help="Mixture models by maximum likelihood: EM and gradient methods on one shared pass over the data.",
        epilog="\b\nTo begin with:\n  emcore compare         the race on the Old Faithful geyser data\n  emcore compare --help",
    )


def _version_option(version: str) -> click.Option:
    import click

    def show(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            click.echo(f"emcore {version}")
            ctx.exit()

    how = {"is_flag": True, "is_eager": True, "expose_value": False}
    return click.Option(["--version"], callback=show, help="Show the version and exit.", **how)


def _solver_list() -> str:
    return _listing("Solvers:", registry.names())


def _listing(head: str, names: dict[str, str]) -> str:
    width = max(map(len, names))
    lines = [head]
    for name, what in names.items():
        indent = " " * (width + 4)
        lines += textwrap.wrap(what.replace("``", ""), 76, initial_indent=f"  {name:<{width}}  ", subsequent_indent=indent)
    return "\n".join(lines)


# What the commands do


def _compare(
    files: tuple[Path, ...], solvers: str, n_starts: int, max_passes: int, output: Path | None, no_picture: bool,
    json_path: Path | None, no_verdict: bool, **options: Any,
) -> int:  # fmt: skip
    import click

    from emcore import plot

    several = n_starts > 1 or len(files) > 1
    with _bad_input():
        runners = ALL if solvers.strip() == ALL else [registry.get(name) for name in _words("--solvers", solvers)]
        if output is not None and no_picture:
            raise ValueError("--output and --no-picture contradict each other")
        output = output or Path(STUDY if several else RACE)
        targets = {}
        if not no_picture:
            plot.check(output)
            targets["--output"] = output
        if json_path is not None:
            targets["--json"] = json_path
        _check_targets(targets, files)
        if several and no_verdict:
            raise ValueError("--no-verdict: there is a verdict of one race only, from one start on one file")
        tables = [_table(file, options["columns"], options["response"]) for file in files or (None,)]
        problems = [_problem(table, options) for table, _ in tables]
        stop = _stop(options, max_passes, several=several)
        run = _study if several else _race
        outcome, title, about = run(tables, problems, runners, stop, n_starts, no_verdict, options)
    click.echo("\n".join(f"{name}: {what}" for (_, name), (*_, what) in zip(tables, problems, strict=True)))
    click.echo(str(outcome))
    with _writing():
        if not no_picture:
            outcome.plot(output, title=title, **({} if several else {"names": problems[0][2]}))
            click.echo(f"Picture: {output}", err=True)
        if json_path is not None:
            _write_json(outcome.to_dict() | about, json_path)
            click.echo(f"JSON: {json_path}", err=True)
    return INTERRUPTED if outcome.interrupted else 0


def _race(
    tables: list[tuple[Table, str]], problems: list[Any], runners: Any, stop: Stop, n_starts: int, no_verdict: bool,
    options: dict[str, Any],
) -> tuple[Comparison, str, dict[str, Any]]:  # fmt: skip
    """Return the race on one table, the title of its picture, and what its JSON says of the file."""
    from emcore.compare import compare

    ((table, title),), ((model, data, *_),) = tables, problems
    start, fixed = _read_start(options["start"])
    with _progress() as show:
        race = compare(
            model, data, solvers=runners, stop=stop, diagnose=False, callback=show, fixed=fixed,
            start=getattr(start, "params", start), **_common(options),
        )  # fmt: skip
        if not no_verdict and not race.interrupted:
            if show is not None:
                show.say("measuring how fast EM and gradient ascent can be at the best fit")
            race = race.diagnosed()
    known = race.to_dict()["data"] | {"file": title, "names": list(table.names), "left_out": list(table.left_out)}
    return race, f"{title}: {race.title()}", {"data": known}


def _study(
    tables: list[tuple[Table, str]], problems: list[Any], runners: Any, stop: Stop, n_starts: int, no_verdict: bool,
    options: dict[str, Any],
) -> tuple[Study, str | None, dict[str, Any]]:  # fmt: skip
    """Return the study of all tables from several starts, and as `_race`."""
    from emcore.study import study

    start, fixed = _read_start(options["start"])
    if n_starts > 1 and not isinstance(start, str):
        raise ValueError("--starts must be 1 when --start is a file: every climb would be the same")
    titles = [title for _, title in tables]
    if len(set(titles)) < len(titles):
        raise ValueError(f"FILE: names must differ, got {', '.join(titles)}")
    named: dict[str, dict[str, Any]] = {}
    for title, (model, data, *_) in zip(titles, problems, strict=True):
        named[title] = {"model": model, "X": data}
        if not isinstance(start, str):
            named[title] |= {"start": getattr(start, "params", start), "fixed": fixed}
    with _progress(several=True) as show:
        outcome = study(
            named, solvers=runners, stop=stop, n_starts=n_starts, callback=show,
            start=start if isinstance(start, str) else "auto", **_common(options),
        )  # fmt: skip
    data = [{"file": title, "names": list(table.names), "left_out": list(table.left_out)} for table, title in tables]
    return outcome, None, {"data": data}


def _show_solvers() -> int:
    import click

    click.echo(_solver_list())
    return 0


def _reproduce(names: tuple[str, ...], output: Path, quick: bool) -> int:
    import click

    from emcore import experiments

    wrong = []
    with _working(len(names or experiments.names())) as work:
        with _bad_input(), _writing():
            outcomes = experiments.reproduce(names, folder=output, quick=quick, tick=work.say)
        with _writing():
            for outcome in outcomes:
                click.echo(f"{outcome}\n")
                click.echo(f"Written: {output / outcome.name}.png, .txt, .csv, .json", err=True)
                work.advance()
                wrong += [outcome.name] * (not outcome.holds)
    if wrong:
        click.echo(f"Out of tolerance: {', '.join(wrong)}", err=True)
    return 1 if wrong else 0


def _show_config() -> int:
    show_config()
    return 0


def _write_json(out: dict[str, Any], path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(out, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _fit(file: Path, solver: str, n_starts: int, max_passes: int, output: Path, **options: Any) -> int:
    import click

    from emcore.fit import fit

    with _bad_input():
        runner = registry.get(solver)
        if output.suffix.lower() != ".npz":
            raise ValueError(f"--output: the extension must be .npz, got {output.suffix or 'none'!r}")
        _check_targets({"--output": output}, (file,))
        table, title = _table(file, options["columns"], options["response"])
        model, data, names, what = _problem(table, options)
        start, fixed = _read_start(options["start"])
        with _progress() as show:
            result = fit(
                model, data,
                solver=runner, stop=_stop(options, max_passes), n_starts=n_starts,
                callback=None if show is None else lambda step: show(runner.describe(), step), start=start, fixed=fixed,
                **_common(options),
            )  # fmt: skip
    click.echo(f"{title}: {what}")
    click.echo(str(result))
    click.echo("\n".join(_parameters(result, names)))
    with _writing():
        result.save(output)
    click.echo(f"Saved: {output}", err=True)
    if result.status.failed:
        return 1
    return INTERRUPTED if result.status is Status.INTERRUPTED else 0


def _problem(table: Table, options: dict[str, Any]) -> tuple[Model, Any, tuple[str, ...], str]:
    """Return the model, its data, the names of the columns that are no response, and in words which columns are used."""
    import click

    k, reg, response = options["components"], options["reg"], options["response"]
    if response is None:
        model = GaussianMixture(k, options["covariance"], reg=reg, **_priors(table, options))
        return model, table.X, table.names, f"columns {', '.join(table.names)}"
    if click.get_current_context().get_parameter_source("covariance") is click.core.ParameterSource.COMMANDLINE:
        raise ValueError("--covariance and --response contradict each other")
    for name in ("prior", "weights_prior"):
        if options[name] is not None:
            raise ValueError(f"--{name.replace('_', '-')}: mixtures of regressions take none")
    j = table.names.index(response.strip())
    names = table.names[:j] + table.names[j + 1 :]
    if not names:
        raise ValueError("--response: no other column is left to explain it by")
    data = np.delete(table.X, j, axis=1), np.asarray(table.X[:, j])
    return RegressionMixture(k, reg=reg), data, names, f"response {table.names[j]}, columns {', '.join(names)}"


def _parameters(result: Fit, names: tuple[str, ...]) -> list[str]:
    """Return weights and means, or coefficients, a line a component; the first ones where there are many."""
    weights = result.params.weights
    what, means = "mean", getattr(result.params, "means", None)
    if means is None:
        what, means, names = "coefficient", result.params.coefficients, ("(intercept)", *names)
    more = " ..." if len(names) > SHOWN else ""
    out = [f"  component  weight    {what} of {', '.join(names[:SHOWN])}{more}"]
    out += [
        f"  {c:>9}  {weights[c]:.5f}  {', '.join(f'{m:.6g}' for m in means[c][:SHOWN])}{more}"
        for c in range(min(len(weights), SHOWN))
    ]
    return out + ([f"  ... and {len(weights) - SHOWN} more"] if len(weights) > SHOWN else [])


def _priors(table: Table, options: dict[str, Any]) -> dict[str, Any]:
    """Return the priors that were asked for, as the model takes them."""
    given: dict[str, Any] = {}
    if options["prior"] is not None:
        rows = as_source(table.X).sample(PRIOR_ROWS, np.random.default_rng(0)).rows[0]
        given["prior"] = fraley_raftery(rows, options["components"], options["covariance"], options["prior"])
    if options["weights_prior"] is not None:
        given["weights_prior"] = Dirichlet(options["weights_prior"])
    return given


def _stop(options: dict[str, Any], max_passes: int, *, several: bool = False) -> Stop:
    gain = (1e-13 if several else 1e-12) if options["gain"] is None else options["gain"]
    return Stop(gain=gain, aitken=options["aitken"], max_passes=max_passes)


def _common(options: dict[str, Any]) -> dict[str, Any]:
    return {"random_state": options["seed"], "n_threads": options["threads"], "coordinates": options["coordinates"]}


def _read_start(text: str) -> tuple[Any, dict[str, Any] | None]:
    """Return what to start from, and what is fixed, from a word: a name of `STARTS`, or a file.

    Parameters
    ----------
    text : str
        The name of a start, of a fit that was saved (.npz), or of a JSON file (.json) that maps the names of the parameters to
        arrays, in the user's units, and where wanted "fixed" to a mapping of names to true or arrays of true and false.

    Returns
    -------
    start : str, Fit or dict of str to ndarray
    fixed : dict or None

    Raises
    ------
    ValueError
        When it is none of these, or the file cannot be read or holds something else.
    """
    from emcore.fit import load

    path = Path(text)
    if text in STARTS:
        return text, None
    if path.suffix.lower() not in (".json", ".npz"):
        raise ValueError(f"--start: must be one of {', '.join(STARTS)}, or a .json or .npz file, got {text!r}")
    try:
        if path.suffix.lower() == ".npz":
            return load(path), None
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--start: {text}: cannot be read: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"--start: {text}: is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"--start: {text}: must map names of parameters to arrays")
    fixed = content.pop("fixed", None)
    if fixed is not None and not isinstance(fixed, dict):
        raise ValueError(f"--start: {text}: 'fixed' must map names of parameters to true or arrays of true and false")
    start = {name: _array(text, name, value, np.float64) for name, value in content.items()}
    return start, fixed and {name: _array(text, f"fixed {name}", value, np.bool_) for name, value in fixed.items()}


def _array(path: str, name: str, value: Any, kind: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in ("b" if kind is np.bool_ else "if"):
        what = "true or an array of true and false" if kind is np.bool_ else "an array of numbers"
        raise ValueError(f"--start: {path}: {name} must be {what}")
    return array.astype(kind)


def _table(file: Path | None, columns: str | None, response: str | None) -> tuple[Table, str]:
    """Return the data, the response among them, and what to call them; names on standard error what is left out."""
    import click

    if file is None:
        for name, value in (("--columns", columns), ("--response", response)):
            if value is not None:
                raise ValueError(f"{name} needs a FILE")
        return Table(faithful(), FAITHFUL), "Old Faithful"
    wanted = None if columns is None else _words("--columns", columns)
    if wanted is not None and response is not None:
        wanted.append(response)
    table = read_table(file, wanted)
    if response is not None and response.strip() not in table.names:
        raise ValueError(f"--response: {file.name} has no numeric column {response!r}; its columns: {', '.join(table.names)}")
    if table.left_out:
        click.echo(f"Left out, not numeric: {', '.join(table.left_out)}", err=True)
    return table, file.name


def _words(name: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ValueError(f"{name}: must be words separated by commas, got {text!r}")
    return words


def _check_targets(targets: dict[str, Path], sources: tuple[Path, ...]) -> None:
    """Refuse files that could not be written in the end, before any work."""
    seen: dict[Path, str] = {source.resolve(): "FILE" for source in sources}
    for name, path in targets.items():
        target = check_writable(path, name)
        if target in seen:
            raise ValueError(f"{name}: is the same file as {seen[target]}")
        seen[target] = name


# Errors, warnings, progress


def _guarded(body: Callable[..., int]) -> Callable[..., None]:
    """Return a command that shows warnings as lines and ends with the exit status of its body."""

    def command(**options: Any) -> None:
        import click

        def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
            click.echo(f"Warning: {message}", err=True)

        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
                warnings.simplefilter("always", UserWarning)
            warnings.showwarning = show
            try:
                status = body(**options)
            except KeyboardInterrupt:
                click.echo("Interrupted.", err=True)
                status = INTERRUPTED
        if status:
            click.get_current_context().exit(status)

    return command


@contextmanager
def _bad_input() -> Iterator[None]:
    """Turn what the library says about bad input into one message and exit status 2."""
    import click

    try:
        yield
    except (ValueError, ImportError) as error:
        refusal = click.ClickException(str(error))
        refusal.exit_code = 2
        raise refusal from None


@contextmanager
def _writing() -> Iterator[None]:
    """Turn a file that cannot be written into one message and exit status 1."""
    import click

    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'output'}: cannot be written: {error.strerror or error}") from None


class _Display:
    """One line a climb on the terminal, or one for all of several: passes, log-likelihood, gain.

    Nothing is shown of what is soon over: the display would cost more than the climb whose seconds are measured.
    """

    def __init__(self, bars: Any, several: bool):
        self.bars, self.several = bars, several
        self.begin = self.next = 0.0
        self.task: Any = None
        self.state = ""

    def __call__(self, label: str, step: Step) -> None:
        row = step.row
        if row.step == 0:
            self._begin(label)
        self.state = f"{row.passes:>6g} passes   log-likelihood {row.value:.8f} per row   gain {row.gain:.1e}"
        now = time.perf_counter()
        self.begin = self.begin or now
        if now >= self.next:
            self.next = now + REFRESH
            self.bars.update(self.task, state=self.state)
            if now - self.begin > DELAY:
                self.bars.start()

    def _begin(self, label: str) -> None:
        """Leave the last line as it ended, and begin another; of several climbs, write over it."""
        if self.task is not None and self.several:
            self.bars.update(self.task, description=label)
            return
        if self.task is not None:
            self.bars.update(self.task, state=self.state, total=1, completed=1)
        self.task, self.next = self.bars.add_task(label, total=None, state=""), 0.0

    def say(self, text: str) -> None:
        """Show what is done now that is no climb."""
        self._begin("verdict")
        self.state = text
        self.bars.update(self.task, state=text)
        self.bars.start()


@contextmanager
def _progress(*, several: bool = False) -> Iterator[_Display | None]:
    """Show progress on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    texts = (TextColumn(what, markup=False) for what in ("{task.description}", "{task.fields[state]}"))
    bars = Progress(SpinnerColumn(finished_text="✓"), *texts, console=Console(stderr=True), transient=True)
    try:
        yield _Display(bars, several)
    finally:
        bars.stop()


class _Work:
    """A bar over parts of work, with what is done now beside it; silent where there is no terminal."""

    def __init__(self, bars: Any = None, total: int = 0):
        self.bars = bars
        self.task = None if bars is None else bars.add_task("", total=total)

    def say(self, what: str) -> None:
        if self.bars is not None:
            self.bars.update(self.task, description=what)

    def advance(self) -> None:
        if self.bars is not None:
            self.bars.advance(self.task)


@contextmanager
def _working(total: int) -> Iterator[_Work]:
    """Show how far work of so many parts is on a terminal."""
    if not sys.stderr.isatty():
        yield _Work()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    said = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), said)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Work(bars, total)


if __name__ == "__main__":
    main()
