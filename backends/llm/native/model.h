/* What a step is told. native/structures.py has the same, field by field.
 *
 * Kinds that a layer lacks are zeros: no norm, no window, no cap, no bias, no rotation. */
#pragma once
#include <stdint.h>

typedef uint16_t bf16;

/* Some of a product's columns, of one format; the next in an array has those behind them.
 * matrices/grouped.py says what codes are, packing.py how they and numbers lie here. */
typedef struct {
    int32_t panels;
    int32_t bits;                  /* of a code; 16: `low` are bfloat16 numbers */
    int32_t zero;                  /* the code (or the table's worth) of 0 */
    int32_t group;                 /* inputs that share a scale: 16, or a multiple of 32 */
    int32_t scale_kind;            /* FLOAT32 ... */
    int32_t worth;                 /* WHOLE: code - zero; TABLE: what it says; FLOAT8: e4m3 */
    int32_t is_whole;              /* all worths are whole, from -zero to 255 - zero */
    float table[16];               /* of codes of 4 bits: what they are worth, */
    uint8_t worths[16];            /* and that above -zero */
    const void *low, *high;        /* planes */
    const void *scales, *minimums; /* [panels, groups, PANEL]; minimums may be null */
    const int32_t *order;          /* [inputs]: which one is read at each place; null: in order */
} Matrix;

enum { FLOAT32, FLOAT16, BFLOAT16 };
enum { WHOLE, TABLE, FLOAT8 };

/* families/kinds.py says what each is. */
typedef struct {
    enum { NO_NORM, RMS_ROUNDED, RMS, LAYER_NORM } kind; /* RMS_ROUNDED: before its weight */
    float eps;
    const float *weight, *bias; /* with the number that a family adds to its weights */
} Norm;

enum { SILU, GELU, GELU_TANH, GELU_SIGMOID, RELU, RELU_SQUARED };

/* Absent parts are null. */
typedef struct {
    int32_t inner, activation, is_gated;
    const Matrix *into; /* a gate and what it lets through in the same panel */
    const bf16 *into_bias;
    const Matrix *down;
    const bf16 *down_bias;
} Mlp;

/* Chooses `active` of `count` experts for each token. */
typedef struct {
    int32_t count, active; /* count 0: the layer's only MLP is that of all tokens */
    int32_t is_sigmoid, is_normalised, groups, active_groups;
    int32_t telling; /* so many of a group's scores say how good it is, its best ones */
    float multiplier;
    const bf16 *weight;      /* packed; [count to whole panels, hidden] */
    const float *correction; /* of scores, for the choice only */
    const bf16 *shared;      /* [hidden]: the share of the expert behind the last, of all tokens */
    int32_t has_shared;      /* without `shared`, that expert's share is 1 */
} Router;

typedef struct {
    int32_t heads, kv_heads, head_dim;
    int32_t rotated; /* how much of a head */
    int32_t window;
    int32_t joins_heads; /* query and key norms are of all heads as one */
    int32_t is_parallel; /* attention and MLP read the same states; without a norm of its own the
                            MLP reads what attention reads */
    int32_t is_turned_by_token; /* cosines and sines are of the step's tokens, in their order */
    float scale, score_cap, clip;
    float multiplier;               /* of what attention and MLP add */
    float key_factor, value_factor; /* of what is kept of keys and values in 8 bits; the inverse of
                                       keys' is in `scale` already */
    const float *slopes;            /* [heads] */
    const bf16 *cosines, *sines;    /* [positions, rotated], or [tokens, rotated] */
    Norm before_attention, after_attention, before_mlp, after_mlp;
    Norm query_norm, key_norm; /* [heads, head_dim], [kv_heads, head_dim] */
    const Matrix *qkv;
    const bf16 *qkv_bias;
    const Matrix *output;
    const bf16 *output_bias;
    void *keys, *values; /* [slots, kv_heads, head_dim]: bfloat16, or e4m3 where there are factors
                          */
    const Mlp *mlps;     /* one, or the router's, and behind them the shared one */
    Router router;
} Layer;

typedef struct {
    int32_t hidden, layers, vocabulary, block_size;
    int32_t has_amx, threads;
    int32_t first_position; /* the row of the first one in `places` */
    float embedding_multiplier, logit_multiplier, logit_cap;
    const bf16 *embedding;
    const Matrix *embedding_codes; /* instead */
    const bf16 *places;            /* learned positions */
    Norm embedding_norm, norm;
    const Matrix *head;
    const bf16 *head_bias;
} Model;

enum { MAX_PARTS = 4 };

/* What adapters add to a product. A part is one of the file's matrices: some of the product's
 * outputs, in tiles of 16. */
typedef struct {
    int32_t depth, parts;  /* the ranks of all adapters and parts, each part's to whole panels */
    const Matrix *down;    /* [depth, inputs] */
    const int32_t *owners; /* [depth]: the slot of each column's adapter */
    int32_t first_tiles[MAX_PARTS], last_tiles[MAX_PARTS], first_columns[MAX_PARTS + 1];
    const bf16 *ups[MAX_PARTS]; /* see pack_tiles() in packing.py; [outputs, a part's depth] */
} Added;

typedef struct {
    Added qkv, output;
    const Added *into, *down; /* of each of the layer's MLPs */
} Adapters;

typedef struct {
    int32_t tokens, sequences, most_blocks, samples;
    const int64_t *token_ids, *positions, *slots; /* [tokens] */
    const int32_t *starts, *lengths, *tables;     /* as in StepInputs */
    const int64_t *sample_rows;
    float *logits; /* [samples, vocabulary] */
    char *scratch; /* scratch_bytes(model, layers, tokens, samples), 64-byte aligned */
    /* Null in steps of the base alone: */
    const Adapters *adapters;     /* [layers] */
    const int32_t *adapter_slots; /* [tokens] */
    bf16 *lowered;     /* [tokens to whole panels, the most depth of any product]: for attention, */
    bf16 *lowered_too; /* and for MLPs: of a mixture for each token's experts, the shared one too */
    int32_t most_depth;
    const bf16 *embedded; /* [tokens, hidden], instead of the embedding's */
    bf16 *states;         /* [samples, hidden]: takes what the head reads */
} Step;

enum {
    TILE = 16,
    PANEL = 32,
    TILE_BYTES = 1024,
    ROWS = 32,
    PIECE_ROWS = 128,  /* rows of a piece of a product */
    MOST_ROWS = 512,   /* the same where weights are expanded for them */
    FEW_ROWS = 8,      /* for as many at most, codes are multiplied as they are, by vectors */
    SLICE = 256,       /* inputs of weights that are expanded at a time, */
    MOST_SLICE = 1024, /* and where more blocks of ROWS than */
    FEW_BLOCKS = 2,    /* read them */
    KEYS = 64,
    MAX_HEAD = 256,
    MAX_HEADS = 64,
    MAX_GROUP = 16
};
