/* What a step is told. native/structures.py has the same, field by field. */
#pragma once
#include <stdint.h>

typedef uint16_t bf16;

typedef struct {
    int32_t hidden, inner, heads, kv_heads, head_dim, layers, vocabulary, block_size, window;
    int32_t has_amx, threads;
    float eps, scale;
    const bf16 *embedding, *norm, *head; /* head is packed */
    const bf16 *cosines, *sines;         /* [positions, head_dim] */
} Model;

/* Matrices are packed, see pack() in decoder.py. Absent parts are null. */
typedef struct {
    const bf16 *input_norm, *qkv, *qkv_bias, *query_norm, *key_norm;
    const bf16 *output, *output_bias, *post_norm, *gate_up, *down;
    bf16 *keys, *values; /* [slots, kv_heads, head_dim] */
} Layer;

typedef struct {
    int32_t tokens, sequences, most_blocks, samples;
    const int64_t *token_ids, *positions, *slots; /* [tokens] */
    const int32_t *starts, *lengths, *tables;     /* as in StepInputs */
    const int64_t *sample_rows;
    float *logits; /* [samples, vocabulary] */
    char *scratch; /* scratch_bytes(model, tokens, samples), 64-byte aligned */
} Step;

enum {
    TILE = 16,
    PANEL = 32,
    TILE_BYTES = 1024,
    ROWS = 32,
    KEYS = 64,
    MAX_HEAD = 128,
    MAX_HEADS = 64,
    MAX_GROUP = 16
};
