"""Finds cache blocks by the tokens they hold: a hash chain over full blocks. Owns no block."""

import secrets
from collections.abc import Callable, Iterable
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

SEED_SIZE_BYTES = 16
DIGEST_SIZE_BYTES = 16


class BlockKey(NamedTuple):
    """What identifies a full block: its own tokens and, through `parent`, all tokens before."""

    digest: bytes
    parent: bytes
    tokens: bytes  # int64, so that a hit is compared token by token


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=DIGEST_SIZE_BYTES).digest()


class PrefixIndex:
    """Maps keys of full blocks to block ids, one block per key and one key per block.

    The chain starts from a random seed, so nobody outside this process can prepare two prompts of
    equal digest; and a digest that is found counts as a hit only if the tokens are equal too.
    """

    def __init__(self, block_size: int, *, digest: Callable[[bytes], bytes] = _digest) -> None:
        self.block_size = block_size
        self._digest = digest
        self._pack = Struct(f"{block_size}q").pack
        self._seed = secrets.token_bytes(SEED_SIZE_BYTES)
        self._entries: dict[bytes, tuple[BlockKey, int]] = {}
        self._digest_of_block: dict[int, bytes] = {}

    def extend(
        self, keys: list[BlockKey], token_ids: list[int], num_blocks: int, salt: str
    ) -> None:
        """Append to `keys` until it holds those of the first `num_blocks` blocks of `token_ids`."""
        if len(keys) >= num_blocks:
            return
        parent = keys[-1].digest if keys else self._digest(self._seed + salt.encode())
        size = self.block_size
        for start in range(len(keys) * size, num_blocks * size, size):
            tokens = self._pack(*token_ids[start : start + size])
            key = BlockKey(self._digest(parent + tokens), parent, tokens)
            keys.append(key)
            parent = key.digest

    def find(self, keys: Iterable[BlockKey]) -> list[int]:
        """The blocks of the longest known run of leading `keys`."""
        found = []
        for key in keys:
            entry = self._entries.get(key.digest)
            if entry is None or entry[0] != key:
                break
            found.append(entry[1])
        return found

    def add(self, key: BlockKey, block_id: int) -> bool:
        """Publish a block; False if the key (or one of equal digest) has a block already."""
        known = self._entries.setdefault(key.digest, (key, block_id))
        if known[1] != block_id:
            return False
        self._digest_of_block[block_id] = key.digest
        return True

    def remove(self, block_id: int) -> None:
        """Forget a block that will hold other tokens."""
        del self._entries[self._digest_of_block.pop(block_id)]

    def clear(self) -> None:
        """Forget all, and what is published with keys from before."""
        self._seed = secrets.token_bytes(SEED_SIZE_BYTES)
        self._entries.clear()
        self._digest_of_block.clear()

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._digest_of_block

    def __len__(self) -> int:
        return len(self._entries)
