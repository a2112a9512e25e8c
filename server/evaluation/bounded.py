"""Regular expressions and JSON schemas of sets, looked at in a process that can be ended: some take
for ever on some texts, and nobody can tell which."""

import json
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from trivet.server.evaluation.faults import SetFault

TIMEOUT_S = 5.0
"""For one look, of the wall's clock: the process may have to be started, too."""
_STARTUP_S = 60.0
_CHUNK = 65_536


class BoundedChecks:
    """Owns the process, which is started for the first look, and anew after one that was broken
    off. Not for several threads at once."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def matches(self, pattern: str, text: str) -> bool:
        """See Helpers."""
        answer = self._ask({"pattern": pattern, "text": text}, f"/{pattern[:64]}/")
        return bool(answer["found"])

    def schema_fault(self, schema: Mapping[str, Any], value: Any) -> str:
        """See Helpers."""
        answer = self._ask({"schema": schema, "value": value}, "the JSON schema")
        return str(answer["why"])

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _ask(self, question: Mapping[str, Any], what: str) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None, "it was started with pipes"
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, self._timeout_s)
        except TimeoutError:
            self.close()
            raise SetFault(
                f"{what} was not through with an answer after {self._timeout_s:g} s; write it "
                "without repetitions inside of repetitions"
            ) from None
        except (OSError, EOFError):
            self.close()
            raise SetFault(f"{what}: the process that looks at it has ended") from None
        answer: dict[str, Any] = json.loads(line)
        if fault := answer.get("fault"):
            raise SetFault(f"{what}: {fault}")
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._rest = b""
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trivet.server.evaluation.checking"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            try:
                self._line(self._process, _STARTUP_S)
            except (EOFError, TimeoutError):
                self.close()
                raise SetFault("the process that looks at answers does not start") from None
        return self._process

    def _line(self, process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
        """The next line that it writes. Raises TimeoutError, EOFError."""
        assert process.stdout is not None, "it was started with pipes"
        ends_at_s = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            left_s = ends_at_s - time.monotonic()
            if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
                raise TimeoutError
            chunk = process.stdout.read1(_CHUNK)  # type: ignore[attr-defined]  # a buffered reader
            if not chunk:
                raise EOFError
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line
