"""What the compiled step is told: decoder.c's structures, field by field."""

from ctypes import Structure, c_float, c_int32, c_void_p


class CModel(Structure):
    """Sizes, and the weights that are not of one layer."""

    _fields_ = (
        *((name, c_int32) for name in (
            "hidden", "inner", "heads", "kv_heads", "head_dim", "layers", "vocabulary",
            "block_size", "window", "has_amx", "threads",
        )),
        *((name, c_float) for name in ("eps", "scale")),
        *((name, c_void_p) for name in ("embedding", "norm", "head", "cosines", "sines")),
    )  # fmt: skip


class CLayer(Structure):
    """One layer's weights, and its part of the cache."""

    _fields_ = tuple((name, c_void_p) for name in (
        "input_norm", "qkv", "qkv_bias", "query_norm", "key_norm", "output", "output_bias",
        "post_norm", "gate_up", "down", "keys", "values",
    ))  # fmt: skip


class CStep(Structure):
    """One step's inputs, its logits and its memory."""

    _fields_ = (
        *((name, c_int32) for name in ("tokens", "sequences", "most_blocks", "samples")),
        *((name, c_void_p) for name in (
            "token_ids", "positions", "slots", "starts", "lengths", "tables", "sample_rows",
            "logits", "scratch",
        )),
    )  # fmt: skip
