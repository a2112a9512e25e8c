"""Every option has one row; flag beats environment beats file beats default."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from trivet.backends.api import InvalidConfig
from trivet.server import app, cli
from trivet.server.settings import Row, Settings, rows
from trivet.server.tracing.config import TraceConfig


class Started:
    """Catches the settings that `trivet serve` would start with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: Settings | None = None

    def serve(self, *flags: str, env: Mapping[str, str] | None = None) -> Settings:
        result = CliRunner().invoke(cli.main, ["serve", str(self.folder), *flags], env=env)
        assert result.exit_code == 0, result.output
        assert self.settings is not None
        return self.settings

    def refusal(self, *flags: str) -> str:
        result = CliRunner().invoke(cli.main, ["serve", *flags])
        assert result.exit_code == 2
        return result.output


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    catcher = Started(tmp_path)

    def run(settings: Settings) -> int:
        catcher.settings = settings
        return 0

    monkeypatch.setattr(app, "run", run)
    return catcher


def test_defaults_are_loopback_and_triton_s_ports(started: Started) -> None:
    settings = started.serve()
    assert (settings.http_port, settings.grpc_port, settings.metrics_port) == (8000, 8001, 8002)
    assert settings.http_address == settings.grpc_address == "127.0.0.1"
    assert settings.model_control_mode == "watch"
    assert settings.model_repository == (started.folder,)


def test_flag_beats_environment_beats_file_beats_default(started: Started) -> None:
    file = started.folder / "trivet.toml"
    file.write_text("http_port = 1\ngrpc_port = 1\nmetrics_port = 1\n")
    env = {"TRIVET_HTTP_PORT": "2", "TRIVET_GRPC_PORT": "2"}
    settings = started.serve(f"--config-file={file}", "--http-port=3", env=env)
    assert (settings.http_port, settings.grpc_port, settings.metrics_port) == (3, 2, 1)
    assert settings.http_max_input_size == 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("flags", "value"),
    [((), False), (("--allow-client-shm",), True), (("--allow-client-shm=true",), True),
     (("--allow-client-shm", "true"), True), (("--allow-client-shm=0",), False)],
)  # fmt: skip
def test_switches_are_written_as_triton_writes_them(
    *, started: Started, flags: tuple[str, ...], value: bool
) -> None:
    assert started.serve(*flags).allow_client_shm is value


def test_repositories_are_positional_or_flags_and_several(started: Started, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    settings = started.serve(f"--model-repository={second}", "--load-model=a", "--load-model=b")
    assert settings.model_repository == (started.folder, second)
    assert settings.load_model == ("a", "b")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("{a}", ("{a}",)),
        ("{a}:{b}", ("{a}", "{b}")),
        ("s3://host:9000/bucket models:/fraud@champion {b}",
         ("s3://host:9000/bucket", "mlflow://models:/fraud@champion", "{b}")),
    ],
)  # fmt: skip
def test_repositories_of_the_environment_are_several(
    started: Started, tmp_path: Path, given: str, read: tuple[str, ...]
) -> None:
    folders = {"a": str(tmp_path / "with a blank"), "b": str(tmp_path / "b")}
    for folder in folders.values():
        Path(folder).mkdir()
    settings = started.serve(env={"TRIVET_MODEL_REPOSITORY": given.format(**folders)})
    assert [str(each) for each in settings.model_repository[1:]] == [
        each.format(**folders) for each in read
    ]


def test_triton_flags_without_a_meaning_are_taken_with_a_notice(started: Started) -> None:
    arguments = ["serve", str(started.folder), "--pinned-memory-pool-byte-size", "5"]
    result = CliRunner().invoke(cli.main, [*arguments, "--http-thread-count=3"])
    assert result.exit_code == 0
    assert "no effect here: --pinned-memory-pool-byte-size, --http-thread-count" in result.output


def test_ignored_switches_may_stand_alone(started: Started) -> None:
    flags = ("--allow-sagemaker", "--http-port=5", "--reuse-http-port", "true")
    settings = started.serve(*flags, "--allow-vertex-ai")
    assert (settings.http_port, settings.model_repository) == (5, (started.folder,))
    result = CliRunner().invoke(cli.main, ["serve", "--allow-sagemaker", str(started.folder)])
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (("--log-verbose=true",), "log_verbose", 1),
        (("--log-verbose=FALSE",), "log_verbose", 0),
        (("--log-verbose", "2"), "log_verbose", 2),
        (("--strict-model-config=true",), "disable_auto_complete_config", True),
        (("--strict-model-config=false",), "disable_auto_complete_config", False),
        (("--model-load-retry-count=3",), "model_load_retry_count", 3),
        (
            ("--trace-file=/t", "--trace-rate", "5", "--trace-level=TIMESTAMPS",
             "--trace-count=7", "--trace-log-frequency=2"),
            "trace_config",
            ("triton,file=/t", "rate=5", "level=TIMESTAMPS", "count=7", "triton,log-frequency=2"),
        ),
    ],
)  # fmt: skip
def test_triton_s_older_flags_and_spellings_are_taken(
    started: Started, flags: tuple[str, ...], name: str, value: object
) -> None:
    assert getattr(started.serve(*flags), name) == value


def test_a_model_store_is_a_repository(started: Started, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    settings = started.serve(f"--model-store={second}")
    assert settings.model_repository == (started.folder, second)


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("localhost:4318/v1/traces", "http://localhost:4318/v1/traces"),
        ("collector", "http://collector"),
        ("https://h:1/x", "https://h:1/x"),
    ],
)
def test_a_collector_s_address_may_come_without_a_scheme(url: str, full: str) -> None:
    config = TraceConfig.parse(["mode=opentelemetry", f"opentelemetry,url={url}"])
    assert config.opentelemetry.url == full


@pytest.mark.parametrize("url", ["ftp://h/x", "http://", "/v1/traces", "://x"])
def test_what_is_no_address_of_a_collector_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig, match="begins with http"):
        TraceConfig.parse([f"opentelemetry,url={url}"])


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--http-prot=1", "."), "Did you mean"),
        (("--http-port=x", "."), "'x' is not a valid integer"),
        (("--model-control-mode=sometimes", "."), "'watch', 'none', 'poll', 'explicit'"),
        (("/nothing/there",), "is not a folder"),
        ((), "give a model repository"),
        (("--config-file=/nothing.toml", "."), "nothing.toml"),
        (("--http-port=99999", "."), "99999 is not in the range 0<=x<=65535"),
        (("--exit-timeout-secs=-1", "."), "-1.0 is not in the range x>=0"),
        (("--exit-timeout-secs=nan", "."), "nan is no finite number"),
        (("--http-max-json-depth=5000", "."), "5000 is not in the range 0<=x<=1000"),
        (("--model-load-thread-count=0", "."), "0 is not in the range x>=1"),
    ],
)
def test_a_wrong_command_line_is_explained(
    started: Started, flags: tuple[str, ...], text: str
) -> None:
    assert text in started.refusal(*flags)


def test_a_file_with_an_unknown_key_is_refused(started: Started) -> None:
    file = started.folder / "trivet.toml"
    file.write_text("http_prot = 1\n")
    assert "unknown setting(s) http_prot" in started.refusal(f"--config-file={file}", ".")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_every_option_is_documented_and_can_be_set_by_environment(row: Row) -> None:
    assert row.option.help
    assert row.env == "TRIVET_" + row.flag.removeprefix("--").replace("-", "_").upper()
    if isinstance(row.default, int | float) and not isinstance(row.default, bool):
        is_port = row.name.endswith("port")
        is_level = row.name == "log_verbose"
        is_count = row.name == "model_load_thread_count" or row.name.endswith("connections")
        assert row.option.unit or is_port or is_level or is_count


def test_a_log_file_that_cannot_be_opened_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "nothing" / "trivet.log"
    result = CliRunner().invoke(cli.main, ["serve", str(tmp_path), f"--log-file={file}"])
    assert result.exit_code == 1
    assert f"cannot start: --log-file={file}: No such file or directory" in caplog.text
