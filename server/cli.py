"""The `trivet` command: its verbs and their options. Rooms are imported when a verb needs them."""

import gc
import importlib
import math
import os
import sys
import tomllib
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import click

from trivet import __version__
from trivet.server.commands.exits import PIPE
from trivet.server.commands.triton_flags import IGNORED_FLAGS, OLDER_FLAGS
from trivet.server.settings import Row, Settings, rows

_SWITCHES = ("--allow-", "--reuse-", "--enable-")
CONTEXT = {"auto_envvar_prefix": "TRIVET", "help_option_names": ["-h", "--help"]}


class FiniteRange(click.FloatRange):
    """A number that is one: not `nan`, not `inf`."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class LevelRange(click.IntRange):
    """A whole number, which `true` and `false` are, too, as Triton takes them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        level = {"true": 1, "false": 0}.get(str(value).lower(), value)
        return int(super().convert(level, param, ctx))


class RepositoryPlace(click.ParamType[Path | str]):
    """A folder, or the address of a repository that lies elsewhere."""

    name = "folder or address"

    def split_envvar_value(self, rv: str) -> list[str]:
        """Folders alone with colons between, as PATH has them; addresses have colons themselves, so
        with one there it is blanks."""
        has_address = "://" in rv or "models:/" in rv
        return rv.split() if has_address else [each for each in rv.split(os.pathsep) if each]

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,  # noqa: ARG002
    ) -> Path | str:
        text = str(value)
        if text.startswith("models:/"):  # as MLflow writes it
            return f"mlflow://{text}"
        return text if "://" in text else Path(value)


class LazyGroup(click.Group):
    """Imports a verb's module when the verb is used, so that `trivet --help` is instant."""

    verbs: ClassVar = {
        "build-engine": "Build a TensorRT engine of an ONNX model.",
        "chat": "Talk to a language model of a running server.",
        "completion": "Print what makes a shell complete verbs and flags.",
        "cost": "Show what requests have cost, by day, model and version.",
        "deploy": "Run servers on a cluster.",
        "doctor": "Say what is there, what is missing and what mends it.",
        "eval": "Run golden sets against a model of a running server.",
        "health": "Tell whether a running server is ready.",
        "infer": "Run one inference and print its outputs as JSON.",
        "keys": "Make keys for clients.",
        "list": "List the models that have been pulled.",
        "models": "List, load and unload the models of a running server.",
        "pull": "Bring models here, to be run or served later.",
        "repo": "Look at a model repository.",
        "rm": "Remove models that have been pulled.",
        "rollout": "Roll versions of a running server's models out, and back.",
        "run": "Serve one model and talk to it.",
        "show": "Show what a model is.",
        "traffic": "Say which requests get which version of a model.",
    }
    """Those that are not here, each a module of its name, and what each does."""
    modules: ClassVar = {"eval": "evaluate", "list": "listing", "rm": "removal"}
    """Of verbs that no module can be called as, or none should."""

    def list_commands(self, context: click.Context) -> list[str]:
        """All verbs."""
        return sorted({*super().list_commands(context), *self.verbs})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The verb, imported if need be."""
        if name in self.verbs:
            verb = self.modules.get(name, name.replace("-", "_"))
            module = importlib.import_module(f"trivet.server.commands.{verb}")
            command: click.Command | None = getattr(module, verb, None)
            return command
        return super().get_command(context, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb. Whoever reads its output may have read enough."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _leave_standard_output()
            click.echo("standard output was closed before all of it was written", err=True)
            ctx.exit(PIPE)

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs and what they do, of which none needs to be imported."""
        here = {name: command.get_short_help_str(80) for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted({**self.verbs, **here}.items()))


def _leave_standard_output() -> None:
    """Python would write once more to it at its end, and fail."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="trivet")
def main() -> None:
    """One inference server for models of every framework."""


def _load_file(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Makes a settings file's values the defaults, below flags and environment."""
    if path is None:
        return None
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}") from None
    known = {row.name for row in rows()}
    unknown = sorted(values.keys() - known)
    if unknown:
        near = (get_close_matches(key, known, n=1) for key in unknown)
        meant = "".join(
            f"; for '{key}', did you mean '{each[0]}'?"
            for key, each in zip(unknown, near, strict=True)
            if each
        )
        raise click.BadParameter(f"{path}: unknown setting(s) {', '.join(unknown)}{meant}")
    context.default_map = {**(context.default_map or {}), **values}
    return path


class ServeCommand(click.Command):
    """Groups the options in the help text and takes `--flag=true` as Triton does."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Before click sees them: drops Triton flags without a meaning here, with one notice."""
        kept, ignored = split_ignored(renamed(args))
        if ignored:
            click.echo(f"no effect here: {', '.join(ignored)}", err=True)
        return super().parse_args(context, kept)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """One section per group of settings."""
        groups: dict[str, list[tuple[str, str]]] = {}
        about = {row.name: row for row in rows()}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            row = about.get(parameter.name or "")
            if record is not None:
                groups.setdefault(row.option.group if row else "other", []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def renamed(args: list[str]) -> list[str]:
    """The arguments with the flags of older Tritons as those that they have become."""
    kept: list[str] = []
    rest = iter(args)
    for argument in rest:
        name, has_value, value = argument.partition("=")
        if name in OLDER_FLAGS:
            flag, prefix = OLDER_FLAGS[name]
            kept += (flag, prefix + (value if has_value else next(rest, "")))
        else:
            kept.append(argument)
    return kept


def split_ignored(args: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without the flags that have no effect here, and the names of those."""
    kept: list[str] = []
    ignored: list[str] = []
    position = 0
    while position < len(args):
        name, has_value, _ = args[position].partition("=")
        position += 1
        if name not in IGNORED_FLAGS:
            kept.append(args[position - 1])
            continue
        ignored.append(name)
        if not has_value and position < len(args) and _is_value(name, args[position]):
            position += 1
    return kept, ignored


def _is_value(flag: str, following: str) -> bool:
    """Whether what follows an ignored flag is its value: switches may stand alone."""
    if flag.startswith(_SWITCHES):
        return following.lower() in ("true", "false", "1", "0", "on", "off")
    return not following.startswith("--")


def _option(row: Row) -> click.Option:
    unit = f" [{row.option.unit}]" if row.option.unit else ""
    multiple: dict[str, Any] = {"multiple": True} if row.option.multiple else {}
    if isinstance(row.default, bool):
        # A bare flag means true, a value is taken as it is.
        multiple |= {"is_flag": False, "flag_value": True}
    if row.option.bare:
        multiple |= {"is_flag": False, "flag_value": row.option.bare}
    return click.Option(
        [row.flag, *row.option.aliases, row.name],
        type=_type(row),
        default=None if row.option.multiple else row.default,
        show_default=not row.option.multiple,
        envvar=row.env,
        help=row.option.help + unit,
        **multiple,
    )


def _type(row: Row) -> click.ParamType[Any]:
    if row.option.choices:
        # A file may say true without quotes.
        return click.Choice(row.option.choices, case_sensitive=not row.option.bare)
    if row.name == "model_repository":
        return RepositoryPlace()
    least, most = row.option.least, row.option.most
    if row.option.is_level:
        return LevelRange(least, most)
    if type(row.default) is int:
        return click.IntRange(least, most)
    if type(row.default) is float:
        return FiniteRange(least, most)
    kind: click.ParamType[Any] = click.types.convert_type(type(row.default))
    return click.STRING if row.option.multiple else kind


def _serve(
    repositories: tuple[Path | str, ...],
    config_file: Path | None,  # noqa: ARG001
    **values: Any,
) -> None:
    """Serve models: of repositories, each a folder or an address, or single ones, each a file, a
    folder or a short name such as smollm2."""
    named = (*repositories, *(values.pop("model_repository") or ()))
    if not named:
        raise click.UsageError("give a model repository: trivet serve FOLDER")
    given = tuple(map(_place_of, named))
    settings = Settings.of({**values, "model_repository": given})
    # Nothing that is imported is garbage: to look for it takes a tenth of the start.
    gc.disable()
    from trivet.server.app import run

    gc.freeze()
    gc.enable()
    sys.exit(run(settings))


def _place_of(repository: Path | str) -> Path | str:
    """With short names as the addresses that they are. Raises UsageError for what there is not."""
    if not isinstance(repository, Path) or repository.exists():
        return repository
    from trivet.server.commands.catalogue import short_names, whatever_else

    name = str(repository)
    known = short_names()
    if name in known:
        return known[name]
    raise click.UsageError(
        f"model repository '{name}' is not a folder, nor a file; {whatever_else(name, known)}"
    )


main.add_command(
    ServeCommand(
        "serve",
        callback=_serve,
        help=_serve.__doc__,
        params=[
            click.Argument(["repositories"], nargs=-1, type=RepositoryPlace(), metavar="FOLDER..."),
            click.Option(
                ["--config-file"],
                type=click.Path(path_type=Path, dir_okay=False),
                callback=_load_file,
                is_eager=True,
                help="TOML file of settings, keys as the flags with underscores",
            ),
            *map(_option, rows()),
        ],
    )
)
