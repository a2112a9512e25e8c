"""Every option of the server, once: flag, environment variable, file key, default, unit, help.

A row gives the flag `--http-port`, the variable `TRIVET_HTTP_PORT` and the file key `http_port`.
Flag beats environment beats file beats default. Nothing else here reads the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from trivet.server.settings.options import Option, Row, option

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """All options of one server. A repository that is no Path is an address."""

    model_repository: tuple[Path | str, ...] = option(
        (),
        "models",
        "folder of models, or an address such as s3://bucket/models; may be given several times",
        multiple=True,
        aliases=("--model-store",),
    )
    model_namespacing: bool = option(
        False,
        "models",
        "let each repository folder have a model of the same name: NAME means the only one, or "
        "FOLDER::NAME says which",
    )
    model_control_mode: str = option(
        "watch",
        "models",
        "watch: follow the folder by file events; poll: look every --repository-poll-secs; "
        "explicit: load and unload by request; none: load once",
        choices=("watch", "none", "poll", "explicit"),
    )
    repository_poll_secs: float = option(15.0, "models", "time between two looks", unit="s")
    remote_cache: str = option(
        "",
        "models",
        "folder for files of repositories elsewhere; default: trivet in the user's cache folder",
    )
    remote_cache_size: int = option(
        64 * 1024 * MIB,
        "models",
        "size of that folder; above it files that no server uses go, unused for longest first",
        unit="bytes",
    )
    remote_config: tuple[str, ...] = option(
        (),
        "models",
        "config.pbtxt for a model of a hub or registry, as MODEL=FILE; may be given several times",
        multiple=True,
    )
    load_model: tuple[str, ...] = option(
        (), "models", "model to load at start in explicit mode, '*' for all", multiple=True
    )
    allow_model_upload: bool = option(
        False, "models", "let clients send the files of a model that they load, in explicit mode"
    )
    max_model_upload_size: int = option(
        256 * MIB, "models", "largest model that is sent so: all its files", unit="bytes"
    )
    allow_pickle: tuple[str, ...] = option(
        (),
        "models",
        "MODEL whose pickles may be loaded, which runs their code, in a process of its own without "
        "network",
        multiple=True,
    )
    allow_install: tuple[str, ...] = option(
        (),
        "models",
        "MODEL whose requirements.txt may be installed, by uv or pip, into an environment of its "
        "own; that runs code of the packages",
        multiple=True,
    )
    environment_cache: str = option(
        "~/.cache/trivet/environments",
        "models",
        "folder that keeps environments of models: unpacked archives and installed packages",
    )
    max_environment_size: int = option(
        32 * 1024 * MIB, "models", "largest environment in an archive, unpacked", unit="bytes"
    )
    environment_cache_size: int = option(
        64 * 1024 * MIB,
        "models",
        "size of that folder; above it environments that no server has used since it started go, "
        "unused for longest first",
        unit="bytes",
    )
    disable_auto_complete_config: bool = option(
        False,
        "models",
        "take configs as they are written",
        aliases=("--strict-model-config",),
    )
    model_config_name: str = option(
        "", "models", "read configs/NAME.pbtxt of a model instead of config.pbtxt where it has one"
    )
    default_max_batch_size: int = option(
        1024,
        "models",
        "rows that a request may have where neither a model's config nor its file says; they are "
        "computed in parts; 0: such models do not batch",
        unit="rows",
        most=(1 << 31) - 1,
    )
    backend_config: tuple[str, ...] = option(
        (),
        "models",
        "Triton's [BACKEND,]default-max-batch-size=ROWS, the same for one backend or all; other "
        "keys have no effect",
        multiple=True,
    )
    default_queue_size: int = option(
        1024,
        "models",
        "requests that may wait per model where its config does not say; 0: any number",
        unit="requests",
    )
    cache_config: tuple[str, ...] = option(
        (),
        "models",
        "response cache: local,size=BYTES or redis,KEY=VALUE with host, port, user, password, db",
        multiple=True,
    )
    response_cache_byte_size: int = option(
        0, "models", "older form of --cache-config local,size=", unit="bytes"
    )
    rate_limit: str = option(
        "off",
        "models",
        "whether instances wait for their group's rate_limiter resources, those that ran least "
        "first",
        choices=("off", "execution_count"),
    )
    rate_limit_resource: tuple[str, ...] = option(
        (),
        "models",
        "NAME:COUNT[:DEVICE], how much there is of a resource; default: the most that one instance "
        "asks for",
        multiple=True,
    )
    host_policy: tuple[str, ...] = option(
        (),
        "models",
        "NAME,cpu-cores=FIRST-LAST or NAME,numa-node=NUMBER: where instances with that "
        "host_policy run; cpu and gpu_0, gpu_1 ... are the names of those without",
        multiple=True,
    )
    model_load_thread_count: int = option(4, "models", "models that load side by side", least=1)
    model_load_retry_count: int = option(
        0, "models", "how often a load that failed is tried again at once", unit="times"
    )
    model_load_gpu_limit: tuple[str, ...] = option(
        (),
        "models",
        "GPU:SHARE, the used share of a GPU's memory from which on no model is loaded there",
        multiple=True,
    )
    model_memory_budget: tuple[str, ...] = option(
        (),
        "models",
        "[GPU:]SIZE, what models may take of host memory or a GPU's, such as 8GiB or 50%; for "
        "others that are asked, those sleep that were not used for longest",
        multiple=True,
    )
    idle_unload_s: float = option(
        0.0,
        "models",
        "models that nobody has asked for so long free their memory, and wake for a request; 0: "
        "they do not",
        unit="s",
    )
    state_dir: str = option("~/.local/state/trivet", "models", "folder for what is to outlive it")
    lm_eval: str = option("lm_eval", "models", "program of EleutherAI's harness, for gates")
    prices: str = option("", "models", "TOML file: what an hour costs; requests are charged by it")
    rollout_state: str = option("", "models", "folder or redis:// URL of roll-outs; else state_dir")
    rollout_policy: str = option("", "models", "TOML file: how new versions of models roll out")
    rollout_webhook: str = option("", "models", "URL that is told what happens to roll-outs")
    llm_in_process: bool = option(
        False,
        "models",
        "run the engines of language models in threads of the server, to debug them",
    )
    strict_readiness: bool = option(
        True, "models", "ready only when every model of the repository serves"
    )
    exit_on_error: bool = option(True, "models", "exit when a model fails to load at start")
    drain_delay_secs: float = option(
        0.0,
        "server",
        "how long to go on serving after SIGTERM, no longer ready, so that load balancers notice",
        unit="s",
    )
    exit_timeout_secs: float = option(
        30.0, "server", "how long requests in progress may take after SIGTERM", unit="s"
    )
    server_id: str = option("triton", "server", "name in the server metadata", flag="id")
    no_progress: bool = option(False, "server", "no progress display")
    spot_notice: str = option(
        "off",
        "server",
        "drain when this cloud says that it takes the machine back",
        choices=("off", "aws", "gcp", "azure"),
    )
    max_response_size: int = option(
        1024 * MIB, "server", "largest answer of a model: the bytes of its outputs", unit="bytes"
    )
    allow_client_shm: bool = option(False, "server", "let clients register system shared memory")
    auth_keys_file: str = option(
        "",
        "server",
        "TOML file of keys that clients must show; `trivet keys create` makes them",
    )
    limits_redis: str = option(
        "",
        "server",
        "redis:// URL where servers with the same keys tell each other what these have used, so "
        "that limits and budgets are those of all together",
    )
    allow_unauthenticated: bool = option(
        False, "server", "let other machines connect although no keys are asked for"
    )
    allow_http: bool = option(True, "http", "serve HTTP/REST")
    http_address: str = option("127.0.0.1", "http", "address to listen on")
    http_port: int = option(8000, "http", "port, 0 for any free one", most=65535)
    http_max_input_size: int = option(64 * MIB, "http", "largest request body", unit="bytes")
    http_max_json_depth: int = option(
        100, "http", "deepest nesting of a JSON body, at most 1000", unit="levels", most=1000
    )
    http_max_json_values: int = option(10_000_000, "http", "values in a JSON body", unit="values")
    http_max_connections: int = option(4096, "http", "connections at a time")
    response_store_count: int = option(
        1000, "http", "answers of /v1/responses that are kept; 0 keeps none", unit="responses"
    )
    response_store_size: int = option(
        64 * MIB, "http", "what they may take in memory", unit="bytes"
    )
    http_header_timeout_s: float = option(
        10.0, "http", "how long a client may take to send its request head", unit="s"
    )
    http_body_timeout_s: float = option(
        30.0, "http", "how long a client may pause while it sends a body", unit="s"
    )
    console: str = option(
        "auto",
        "http",
        "a page at / that shows and tries models; auto: where only this machine can connect",
        choices=("auto", "true", "false"),
        bare="true",
    )
    http_tls_cert: str = option("", "http", "PEM certificate to serve HTTPS with")
    http_tls_key: str = option("", "http", "its PEM key, without a password")
    http_tls_client_ca: str = option(
        "", "http", "PEM certificates; clients must show one that is signed by one of them"
    )
    http_cors_origins: tuple[str, ...] = option(
        (),
        "http",
        "origin such as https://example.com whose pages may call the server, '*' for all",
        multiple=True,
    )
    http_allowed_hosts: tuple[str, ...] = option(
        (),
        "http",
        "host name that requests may be for, '*.example.com' for all below it; default: any",
        multiple=True,
    )
    http_header_forward_pattern: str = option(
        "", "http", "regular expression of headers that models get as request parameters"
    )
    http_restricted_api: tuple[str, ...] = option(
        (),
        "http",
        "API,API:HEADER=VALUE: what only requests with that header may use",
        multiple=True,
    )
    http_response_compression_level: str = option(
        "low",
        "http",
        "compression of infer answers for clients that accept it",
        choices=("none", "low", "medium", "high"),
    )
    allow_grpc: bool = option(True, "grpc", "serve gRPC")
    grpc_address: str = option("127.0.0.1", "grpc", "address to listen on")
    grpc_port: int = option(8001, "grpc", "port, 0 for any free one", most=65535)
    grpc_max_message_size: int = option(256 * MIB, "grpc", "largest request message", unit="bytes")
    grpc_max_connections: int = option(4096, "grpc", "connections at a time")
    grpc_infer_response_compression_level: str = option(
        "none",
        "grpc",
        "compression of responses for clients that accept it",
        choices=("none", "low", "medium", "high"),
    )
    grpc_keepalive_time: int = option(7_200_000, "grpc", "time between two pings", unit="ms")
    grpc_keepalive_timeout: int = option(20_000, "grpc", "wait for a ping's answer", unit="ms")
    grpc_keepalive_permit_without_calls: bool = option(
        True, "grpc", "ping connections without calls in progress, too"
    )
    grpc_http2_max_pings_without_data: int = option(
        0, "grpc", "pings in a row while no call moves on; 0: any number", unit="pings"
    )
    grpc_http2_min_recv_ping_interval_without_data: int = option(
        0, "grpc", "a client's ping sooner than that is a strike; 0: none is", unit="ms"
    )
    grpc_http2_max_ping_strikes: int = option(
        2, "grpc", "strikes that a connection is allowed; 0: any number", unit="strikes"
    )
    grpc_max_connection_age: int = option(
        0, "grpc", "close connections after this time; 0: never", unit="ms"
    )
    grpc_max_connection_age_grace: int = option(
        0, "grpc", "then wait this long for calls in progress; 0: any time", unit="ms"
    )
    grpc_use_ssl: bool = option(False, "grpc", "serve gRPC over TLS")
    grpc_use_ssl_mutual: bool = option(
        False, "grpc", "the same, and clients must show a certificate that --grpc-root-cert signed"
    )
    grpc_server_cert: str = option("", "grpc", "PEM certificate")
    grpc_server_key: str = option("", "grpc", "its PEM key, without a password")
    grpc_root_cert: str = option("", "grpc", "PEM certificates that sign those of clients")
    grpc_header_forward_pattern: str = option(
        "", "grpc", "regular expression of metadata that models get as request parameters"
    )
    grpc_restricted_protocol: tuple[str, ...] = option(
        (),
        "grpc",
        "API,API:KEY=VALUE: what only calls with the metadata triton-grpc-protocol-KEY may use",
        multiple=True,
    )
    allow_metrics: bool = option(True, "metrics", "serve the Prometheus page")
    allow_cpu_metrics: bool = option(True, "metrics", "nv_cpu_ metrics on the page")
    allow_gpu_metrics: bool = option(True, "metrics", "nv_gpu_ metrics on the page")
    metrics_address: str = option("127.0.0.1", "metrics", "address to listen on")
    metrics_port: int = option(8002, "metrics", "port, 0 for any free one", most=65535)
    metrics_tls_cert: str = option("", "metrics", "PEM certificate to serve HTTPS with")
    metrics_tls_key: str = option("", "metrics", "its PEM key, without a password")
    metrics_tls_client_ca: str = option(
        "", "metrics", "PEM certificates; clients must show one that is signed by one of them"
    )
    metrics_interval_ms: int = option(
        2000, "metrics", "time between two readings of CPU and memory", unit="ms"
    )
    metrics_config: tuple[str, ...] = option(
        (),
        "metrics",
        "counter_latencies=BOOL and histogram_latencies=BOOL, both true by default; "
        "summary_latencies=BOOL, false by default; summary_quantiles=QUANTILE:ERROR,...",
        multiple=True,
    )
    trace_config: tuple[str, ...] = option(
        (),
        "tracing",
        "which requests are traced, and where to: mode=, level=, rate=, count=, triton,file=, "
        "triton,log-frequency=, opentelemetry,url=, opentelemetry,resource=KEY=VALUE, "
        "opentelemetry,bsp_*=",
        multiple=True,
    )
    log_verbose: int = option(0, "log", "1 and more: debug messages", is_level=True)
    log_info: bool = option(True, "log", "informational messages")
    log_warning: bool = option(True, "log", "warnings")
    log_error: bool = option(True, "log", "errors")
    log_file: str = option("", "log", "file to append to instead of standard error")
    log_format: str = option(
        "default", "log", "line format", choices=("default", "ISO8601", "json")
    )
    delay_scheduler: int = option(
        0,
        "test hooks",
        "batchers start nothing before so many requests are queued (once)",
        unit="requests",
    )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Settings":
        """From the command line's values; lists become tuples."""
        known = {each.name for each in fields(cls)}
        chosen: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in known and value is not None
        }
        return cls(**chosen)


def rows() -> list[Row]:
    """All options in the order of the help text."""
    listed = []
    for each in fields(Settings):
        about: Option = each.metadata["option"]
        flag = about.flag or each.name.replace("_", "-")
        env = f"TRIVET_{flag.replace('-', '_').upper()}"
        listed.append(Row(each.name, about, each.default, f"--{flag}", env))
    return listed
