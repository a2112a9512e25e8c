"""`trivet build-engine`: a TensorRT engine of an ONNX model, before it is served."""

import tomllib
from pathlib import Path
from typing import Any

import click

from trivet.backends.api import About, ServingError
from trivet.backends.api.engine_build import BuildsEngines
from trivet.backends.registry import abouts, open_backend
from trivet.server.repository.config import parse_config


@click.command("build-engine")
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="the plan; model.plan beside the model"
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of build settings, or a config.pbtxt whose max_batch_size counts",
)
@click.option("--max-batch-size", type=int, help="for models of which only the batch is variable")
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME=MIN:OPT:MAX,...",
    help="shapes to build for, such as x=1x3x224x224:8x3x224x224:32x3x224x224; once per profile",
)
@click.option("--fp16", is_flag=True, help="let TensorRT compute in half precision")
@click.option("--bf16", is_flag=True, help="let TensorRT compute in bfloat16")
@click.option("--version-compatible", is_flag=True, help="an engine that later TensorRTs run too")
@click.option("--hardware-compatible", is_flag=True, help="an engine for all GPUs from Ampere on")
@click.option(
    "--compute-capability",
    "compute_capabilities",
    multiple=True,
    metavar="8.9",
    help="TensorRT-RTX: GPUs to build for; needs none of them here",
)
def build_engine(model: Path, output: Path | None, config_file: Path | None, **flags: Any) -> None:
    """Build a TensorRT engine of an ONNX model, with its optimisation profiles."""
    settings = _read(config_file) if config_file is not None else {}
    profiles = [_profile(text) for text in flags.pop("profiles")]
    given = {name: value for name, value in flags.items() if value}
    if "compute_capabilities" in given:
        given["compute_capabilities"] = list(given["compute_capabilities"])
    settings |= given
    if profiles:
        settings["profiles"] = profiles
    about = _builder(output)
    target = output or model.with_name(about.model_files[0])
    try:
        backend = open_backend(about.word)
        if not isinstance(backend, BuildsEngines):
            raise click.ClickException(f"backend '{about.word}' builds no engines")
        click.echo(backend.build(model, target, settings))
    except ServingError as error:
        raise click.ClickException(error.message) from None


def _builder(output: Path | None) -> About:
    """What the backend says that makes engines such as this one."""
    builders = [about for about in abouts().values() if about.builds_engines]
    fitting = [about for about in builders if output and output.suffix in about.suffixes]
    return (fitting or builders)[0]


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".pbtxt":
            return {"max_batch_size": parse_config(text, str(path)).max_batch_size}
        return tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}") from None
    except ServingError as error:
        raise click.BadParameter(error.message) from None


def _profile(text: str) -> dict[str, Any]:
    """`x=1x4:2x4:8x4,s=1:2:4`."""
    profile: dict[str, Any] = {}
    for part in text.split(","):
        name, has_shapes, shapes = part.partition("=")
        try:
            low, best, high = ([int(d) for d in each.split("x")] for each in shapes.split(":"))
        except ValueError:
            has_shapes = ""
        if not has_shapes or not name:
            raise click.BadParameter(
                f"--profile {text[:80]}: write NAME=MIN:OPT:MAX with dimensions such as 1x3x224x224"
            )
        profile[name] = {"min": low, "opt": best, "max": high}
    return profile
