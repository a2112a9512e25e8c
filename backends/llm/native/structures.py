"""What the compiled step is told: model.h's structures, field by field."""

import ctypes
from ctypes import Structure, c_float, c_int32, c_int64, c_uint8, c_void_p


class CMatrix(Structure):
    """Some columns of a product's weights."""

    _fields_ = (
        *((name, c_int32) for name in (
            "panels", "bits", "zero", "group", "scale_kind", "worth", "is_whole",
        )),
        ("table", c_float * 16),
        ("worths", c_uint8 * 16),
        *((name, c_void_p) for name in ("low", "high", "scales", "minimums", "order")),
    )  # fmt: skip


class CNorm(Structure):
    """A norm, in float32; all zeros where there is none."""

    _fields_ = (
        ("kind", c_int32), ("eps", c_float), ("weight", c_void_p), ("bias", c_void_p),
    )  # fmt: skip


class CMlp(Structure):
    """A dense MLP, or one expert."""

    _fields_ = (
        *((name, c_int32) for name in ("inner", "activation", "is_gated")),
        *((name, c_void_p) for name in ("into", "into_bias", "down", "down_bias")),
    )


class CRouter(Structure):
    """How a mixture's experts are chosen; all zeros where there are none."""

    _fields_ = (
        *((name, c_int32) for name in (
            "count", "active", "is_sigmoid", "is_normalised", "groups", "active_groups",
            "telling",
        )),
        ("multiplier", c_float),
        *((name, c_void_p) for name in ("weight", "correction", "shared")),
        ("has_shared", c_int32),
    )  # fmt: skip


class CLayer(Structure):
    """One layer's kinds and weights, and its part of the cache."""

    _fields_ = (
        *((name, c_int32) for name in (
            "heads", "kv_heads", "head_dim", "rotated", "window", "joins_heads", "is_parallel",
            "is_turned_by_token",
        )),
        *((name, c_float) for name in (
            "scale", "score_cap", "clip", "multiplier", "key_factor", "value_factor",
        )),
        *((name, c_void_p) for name in ("slopes", "cosines", "sines")),
        *((name, CNorm) for name in (
            "before_attention", "after_attention", "before_mlp", "after_mlp", "query_norm",
            "key_norm",
        )),
        *((name, c_void_p) for name in (
            "qkv", "qkv_bias", "output", "output_bias", "keys", "values",
        )),
        ("mlps", ctypes.POINTER(CMlp)),
        ("router", CRouter),
    )  # fmt: skip


class CModel(Structure):
    """Sizes, and what is not of one layer."""

    _fields_ = (
        *((name, c_int32) for name in (
            "hidden", "layers", "vocabulary", "block_size", "has_amx", "threads", "first_position",
        )),
        *((name, c_float) for name in ("embedding_multiplier", "logit_multiplier", "logit_cap")),
        *((name, c_void_p) for name in ("embedding", "embedding_codes", "places")),
        *((name, CNorm) for name in ("embedding_norm", "norm")),
        *((name, c_void_p) for name in ("head", "head_bias")),
    )  # fmt: skip


MAX_PARTS = 4


class CAdded(Structure):
    """What adapters add to a product; all zeros where they add nothing."""

    _fields_ = (
        *((name, c_int32) for name in ("depth", "parts")),
        *((name, c_void_p) for name in ("down", "owners")),
        *((name, c_int32 * MAX_PARTS) for name in ("first_tiles", "last_tiles")),
        ("first_columns", c_int32 * (MAX_PARTS + 1)),
        ("ups", c_void_p * MAX_PARTS),
    )  # fmt: skip


class CAdapters(Structure):
    """A layer's products, as adapters change them."""

    _fields_ = (
        ("qkv", CAdded), ("output", CAdded),
        ("into", ctypes.POINTER(CAdded)), ("down", ctypes.POINTER(CAdded)),
    )  # fmt: skip


class CStep(Structure):
    """One step's inputs, its logits and its memory."""

    _fields_ = (
        *((name, c_int32) for name in ("tokens", "sequences", "most_blocks", "samples")),
        *((name, c_void_p) for name in (
            "token_ids", "positions", "slots", "starts", "lengths", "tables", "sample_rows",
            "logits", "scratch", "adapters", "adapter_slots", "lowered", "lowered_too",
        )),
        ("most_depth", c_int32),
        *((name, c_void_p) for name in ("embedded", "states")),
    )  # fmt: skip


class CMultiplied(Structure):
    """A product by itself."""

    _fields_ = (
        ("rows", c_int32), ("depth", c_int32), ("width", c_int64),
        *((name, c_void_p) for name in ("weight", "bias", "left", "to")),
    )  # fmt: skip


class CActivated(Structure):
    """A gated MLP by itself."""

    _fields_ = (
        ("rows", c_int32), ("hidden", c_int32),
        *((name, c_void_p) for name in ("mlp", "left", "activated", "to")),
    )  # fmt: skip


class CNormed(Structure):
    """A norm by itself."""

    _fields_ = (
        ("norm", c_void_p), ("rows", c_int32), ("size", c_int32), ("from_", c_void_p),
        ("to", c_void_p),
    )  # fmt: skip


class CAttended(Structure):
    """A layer's attention by itself."""

    _fields_ = tuple((name, c_void_p) for name in ("layer", "step", "query", "key", "value", "to"))


class CAttentionBlock(Structure):
    """An attention and the products around it, by themselves."""

    _fields_ = (
        *((name, c_void_p) for name in ("layer", "step")),
        ("hidden", c_int32),
        *((name, c_void_p) for name in ("left", "qkv", "query", "attended", "to")),
    )


class CLayerBlock(Structure):
    """A layer by itself."""

    _fields_ = tuple((name, c_void_p) for name in ("layer", "step", "from_", "scratch", "to"))


_STRUCTURES = (
    CModel, CLayer, CMlp, CStep, CAdapters, CAdded, CMatrix, CMultiplied, CActivated, CNormed,
    CAttended, CAttentionBlock, CLayerBlock,
)  # fmt: skip
STRUCTURE_BYTES = sum(map(ctypes.sizeof, _STRUCTURES))
"""What the library must have been compiled with."""
