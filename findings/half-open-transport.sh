#!/usr/bin/env bash
# uvloop 0.23.0 beside asyncio of CPython 3.11: a connection kept open after the peer's FIN.
#
# Situation: a Protocol's eof_received returns True, so that a client that has closed its sending half
# still gets its answer. Then the client is gone altogether, and answers the server's next bytes with a
# reset.
# Guess: connection_lost is called when the reset comes, with either loop.
# Seen: the reset goes unnoticed with both. Nothing reads the socket any more, so the first write after
# it succeeds, and only the second one finds out (BrokenPipeError to connection_lost). After that the two
# differ: write() on the lost transport is ignored by asyncio, and raises RuntimeError in uvloop.
# So: a server that waits for a slow computation before it writes never learns that nobody is there; it
# has to write something twice, some time apart. And code that may write after connection_lost must ask
# is_closing() first, or works with one loop and fails with the other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q uvloop==0.23.0
cat > "$folder/half_open.py" <<'END'
import asyncio
import socket

import uvloop


class Kept(asyncio.Protocol):
    last: "Kept"

    def connection_made(self, transport):
        self.transport, self.events = transport, []
        Kept.last = self

    def eof_received(self):
        self.events.append("eof")
        return True

    def connection_lost(self, error):
        self.events.append(type(error).__name__)


async def seen():
    server = await asyncio.get_running_loop().create_server(Kept, "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    client.sendall(b"asked")
    await asyncio.sleep(0.2)
    client.close()
    await asyncio.sleep(0.5)
    kept, found = Kept.last, []
    found.append(list(kept.events))
    for _ in range(2):
        kept.transport.write(b"answer")
        await asyncio.sleep(0.5)
        found.append(list(kept.events))
    try:
        kept.transport.write(b"more")
        found.append("ignored")
    except RuntimeError:
        found.append("RuntimeError")
    server.close()
    return found


def expected(end):
    return [["eof"], ["eof"], ["eof", "BrokenPipeError"], end]


for name, run, end in (("asyncio", asyncio.run, "ignored"), ("uvloop", uvloop.run, "RuntimeError")):
    got = run(seen())
    print(name, got)
    assert got == expected(end), f"{name} behaves otherwise now"
END
"$folder/venv/bin/python" -W ignore "$folder/half_open.py"
echo "as described"
