"""`trivet eval`: whether a version of a model is good enough, by sets of cases."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from trivet.server.commands.client import api_key_option

_STATE_DIR = "~/.local/state/trivet"
_HISTORY = "evaluations-by-hand"
"""Beside what the gates of a server leave there: by hand no version gets a report for its gate."""
_FORMATS = ("text", "json", "junit", "html")


class _EvalGroup(click.Group):
    """`trivet eval MODEL SET...` runs; `trivet eval add` adds."""

    def format_usage(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Both ways."""
        formatter.write_usage(context.command_path, "MODEL[@LABEL] [SETS]... [OPTIONS]")
        formatter.write_usage(context.command_path, "add SET [OPTIONS]", prefix="       ")

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Those of running sets, which is what is meant without a verb."""
        with formatter.section("Options"):
            formatter.write_dl(
                [
                    told
                    for each in run.get_params(context)
                    if (told := each.get_help_record(context))
                ]
            )
        self.format_commands(context, formatter)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """What is no verb is a model."""
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(context, args)


@click.group(name="eval", cls=_EvalGroup)
def evaluate() -> None:
    """Run golden sets against a model of a running server: `trivet eval MODEL[@LABEL] SET...`."""


def _number_option(flag: str, help: str) -> Callable[..., Any]:  # noqa: A002 - click's word
    return click.option(flag, type=float, default=None, help=help)


@evaluate.command()
@click.argument("model")
@click.argument("sets", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--regression",
    "regressions",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="a set whose cases may not fail once they have passed; may be given several times",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="an eval.toml: its sets, budgets and judge",
)
@click.option("--version", default="", help="a version's number; the newest without it")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="HTTP address")
@api_key_option
@_number_option("--min-pass-rate", "the part of cases that must pass, from 0 to 1 [1]")
@_number_option("--max-p95-ms", "the 95th percentile of the latency may be so long")
@_number_option("--max-cost-per-1k", "1,000 cases may cost so much")
@click.option(
    "--history",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="folder that keeps reports, which cases ever passed, and what judges said  [default: "
    f"{_HISTORY} in --state-dir]",
)
@click.option(
    "--state-dir", default=_STATE_DIR, show_default=True, envvar="TRIVET_STATE_DIR", help="a folder"
)
@click.option(
    "--lm-eval",
    "program",
    default="lm_eval",
    show_default=True,
    envvar="TRIVET_LM_EVAL",
    help="EleutherAI's harness, for the tasks of a config",
)
@click.option("--digest", default="", hidden=True, help="of the version's files: the server's own")
@click.option("-o", "--output", type=click.Choice(_FORMATS), default="text", show_default=True)
@click.option(
    "--output-file", type=click.Path(dir_okay=False, path_type=Path), help="write it here"
)
def run(
    model: str,
    sets: tuple[Path, ...],
    regressions: tuple[Path, ...],
    config_file: Path | None,
    version: str,
    url: str,
    api_key: str,
    history: Path | None,
    state_dir: str,
    program: str,
    digest: str,
    output: str,
    output_file: Path | None,
    **bounds: float | None,
) -> None:
    """Run sets. Exit code 0: passed; 1: not passed; 2: a set, a rubric or a config is faulty."""
    from trivet.server.evaluation.asking import Endpoint
    from trivet.server.evaluation.faults import SetFault
    from trivet.server.evaluation.harness import FOLDER, HARNESS_TIMEOUT_S, Harness
    from trivet.server.evaluation.history import History
    from trivet.server.evaluation.running import Run, Subject
    from trivet.server.repository.layout import EVALUATION_FOLDER

    try:
        config = _config(config_file, bounds)
        folder = config_file.parent if config_file is not None else Path()
        read = _sets(
            (*sets, *(folder / name for name in config.sets)),
            (*regressions, *(folder / name for name in config.regressions)),
            may_be_none=bool(config.tasks),
        )
        kept = History(history or Path(state_dir).expanduser() / _HISTORY)
        endpoint = Endpoint(url, api_key, config.timeout_s)
        tasks_dir = folder / EVALUATION_FOLDER / FOLDER
        harness = Harness(program, endpoint, tasks_dir, HARNESS_TIMEOUT_S)
        made = Run(endpoint, config, kept, harness=harness)
        report = made.evaluate(Subject(model, version, digest), read)
    except SetFault as fault:
        _fail(str(fault))
    except OSError as error:
        _fail(f"what an evaluation leaves behind cannot be kept: {error}")
    written = _written(report, kept, output)
    if output_file is not None:
        output_file.write_text(written, encoding="utf-8")
    else:
        click.echo(written)
    sys.exit(0 if report.passed else 1)


def _fail(text: str) -> Any:
    click.echo(f"Error: {text}", err=True)
    sys.exit(2)


def _config(path: Path | None, bounds: dict[str, float | None]) -> Any:
    from dataclasses import replace

    from trivet.server.evaluation.config import NOTHING_ASKED, parse_config

    config = NOTHING_ASKED
    if path is not None:
        config = parse_config(path.read_text(encoding="utf-8"), path.parent)
    given = {name: value for name, value in bounds.items() if value is not None}
    return replace(config, **given)  # type: ignore[arg-type]  # the options are called as the fields


def _sets(paths: Iterable[Path], regressions: Iterable[Path], *, may_be_none: bool) -> list[Any]:
    from trivet.server.evaluation.case import read_set
    from trivet.server.evaluation.faults import SetFault

    read = [read_set(path) for path in paths]
    read += [read_set(path, is_regression=True) for path in regressions]
    if not read and not may_be_none:
        raise SetFault("there is no set; give a JSONL file, or --config with sets in it")
    names = [each.name for each in read]
    for each in read:
        if names.count(each.name) > 1:
            raise SetFault(f"two sets are called '{each.name}'; rename {each.path}")
    return read


def _written(report: Any, history: Any, output: str) -> str:
    from trivet.server.evaluation.pages import as_html, as_junit, as_text

    before = history.before(report)
    if output == "json":
        return json.dumps(report.to_json(), indent=2)
    if output == "junit":
        return as_junit(report)
    return as_html(report, before) if output == "html" else as_text(report, before)


@evaluate.command()
@click.argument("set_file", metavar="SET", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--from-trace",
    "trace",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="file of --trace-config mode=triton with level TENSORS",
)
@click.option("--request", "request_id", required=True, help="the request's id")
@click.option("--id", "case_id", default="", help="of the case; the request's id without it")
@click.option(
    "--tolerance", type=float, default=1e-6, show_default=True, help="of numbers of the answer"
)
def add(set_file: Path, trace: Path, request_id: str, case_id: str, tolerance: float) -> None:
    """Make a case of a traced request: its answer of then is what is expected."""
    from trivet.server.evaluation.faults import SetFault
    from trivet.server.evaluation.traced import add_case

    try:
        case = add_case(set_file, trace, request_id, case_id or request_id, tolerance)
    except SetFault as fault:
        _fail(str(fault))
    click.echo(f"{set_file}: case '{case['id']}' added; look at what it expects")
