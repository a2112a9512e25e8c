"""`trivet infer`: one request from the command line."""

import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import numpy as np
import orjson

from trivet.backends.api.datatype import BY_NAME, DataType
from trivet.server.commands.client import Client, api_key_option

Values = np.ndarray


@click.command()
@click.argument("model")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUES",
    help="1,2,3 or a JSON list or @file.npy; once for each input",
)
@click.option("--version", default="", help="a version; the newest without it")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="HTTP address")
@api_key_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="write outputs to this .npz")
@click.option("--show-curl", is_flag=True, help="print the request as a curl command instead")
def infer(
    model: str,
    inputs: tuple[str, ...],
    version: str,
    url: str,
    api_key: str,
    output: Path | None,
    *,
    show_curl: bool,
) -> None:
    """Run one inference and print its outputs as JSON.

    Datatypes and shapes come from the model: one item of a batch may be given without its batch
    dimension.
    """
    client = Client(url, api_key)
    path = f"/v2/models/{quote(model, safe='')}"
    path += f"/versions/{quote(version, safe='')}" if version else ""
    specs = {spec["name"]: spec for spec in client.call("GET", path)["inputs"]}
    body = {"inputs": [_tensor(text, specs) for text in inputs]}
    if show_curl:
        data = orjson.dumps(body).decode()
        click.echo(f"curl -s {shlex.quote(url + path + '/infer')} -d {shlex.quote(data)}")
        return
    answer = client.call("POST", f"{path}/infer", body)
    if output is not None:
        arrays = {each["name"]: _array(each) for each in answer["outputs"]}
        np.savez(output, allow_pickle=False, **arrays)
        click.echo(f"{', '.join(arrays)} written to {output}")
        return
    click.echo(orjson.dumps(answer["outputs"], option=orjson.OPT_INDENT_2))


def _tensor(text: str, specs: dict[str, Any]) -> dict[str, Any]:
    name, found, given = text.partition("=")
    if not found or name not in specs:
        raise click.BadParameter(
            f"--input {text[:60]}: write NAME=VALUES with a name out of {', '.join(specs)}"
        )
    spec = specs[name]
    datatype = BY_NAME[spec["datatype"]]
    values = _with_batch(_values(name, given, datatype), spec["shape"])
    data = [str(v) for v in values.ravel()] if datatype is DataType.BYTES else values.ravel()
    return {
        "name": name,
        "datatype": datatype.value,
        "shape": list(values.shape),
        "data": data if isinstance(data, list) else data.tolist(),
    }


def _values(name: str, given: str, datatype: DataType) -> Values:
    dtype = np.dtype(object) if datatype is DataType.BYTES else datatype.dtype
    try:
        if given.startswith("@"):
            loaded: Values = np.load(given[1:], allow_pickle=False)
            return loaded
        if given.startswith("["):
            return np.array(orjson.loads(given), dtype=dtype)
        items: list[Any] = given.split(",")
        if datatype is not DataType.BYTES:
            items = [orjson.loads(item.strip()) for item in items]
        return np.array(items, dtype=dtype)
    except (OSError, ValueError) as error:
        raise click.BadParameter(
            f"--input {name}: '{given[:60]}' is neither a comma-separated list, a JSON list nor "
            f"@file.npy of {datatype.value} ({error})"
        ) from None


def _with_batch(values: Values, shape: list[int]) -> Values:
    """Adds the batch dimension where exactly that is missing."""
    return values[np.newaxis] if values.ndim == len(shape) - 1 else values


def _array(output: dict[str, Any]) -> Values:
    datatype = BY_NAME[output["datatype"]]
    dtype = np.dtype(str) if datatype is DataType.BYTES else datatype.dtype
    return np.array(output["data"], dtype=dtype).reshape(output["shape"])
