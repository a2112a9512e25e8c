/* Attention over the paged cache, 16 tokens of a sequence at a time, by tiles: FlashAttention's
 * order (Dao, 2023), 64 keys at a time. */
#pragma once
#include "attention.h"

/* 16 x 16 words turned over, into a tile; zeros for those that are not `there`. */
static inline void transpose(const bf16 *const *rows, int offset, __mmask16 there, char *tile) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = _mm512_maskz_loadu_epi32(there, rows[i] + offset);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
        b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
        b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(tile + 64 * i, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
        _mm512_storeu_si512(tile + 64 * (i + 8), _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
        _mm512_storeu_si512(tile + 64 * (i + 4), _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0x88));
        _mm512_storeu_si512(tile + 64 * (i + 12), _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0xdd));
    }
}

/* The keys and values of 64 positions as tiles. */
typedef struct {
    char keys[KEYS * MAX_HEAD * 2];   /* [16 positions][32 numbers of a head], turned over */
    char values[KEYS * MAX_HEAD * 2]; /* [32 positions][16 numbers of a head], in pairs */
} __attribute__((aligned(64))) KeyTiles;

/* 16 tokens' way through the keys, for one query head. */
typedef struct {
    float most[TILE], total[TILE];
    float sums[TILE * MAX_HEAD];
} HeadTile;

/* Where the tokens of a tile lie, and the keys that they see. */
typedef struct {
    int first, tokens; /* in the step */
    int begin, length; /* positions of keys */
} Span;

static Span span_of(const Layer *layer, const Step *step, int sequence, int first) {
    const int end = step->starts[sequence + 1];
    Span span = {.first = first, .tokens = end - first < TILE ? end - first : TILE};
    span.length = (int)step->positions[first + span.tokens - 1] + 1;
    const int seen = (int)step->positions[first] + 1;
    if (layer->window && seen > layer->window) span.begin = (seen - layer->window) / KEYS * KEYS;
    return span;
}

static void load_tiles(const Layer *layer, int kv_head, const int64_t *places, KeyTiles *tiles) {
    const bf16 *rows[KEYS];
    bf16 room[KEYS * MAX_HEAD]; /* of 8 bits */
    const int size = layer->head_dim, steps = padded_head(size) / 32, columns = size / TILE;
    find_numbers(layer, kept_at(layer, layer->keys, kv_head * size), places, KEYS, room, rows);
    for (int part = 0; part < KEYS / TILE; part++)
        for (int k = 0; k < steps; k++)
            transpose(rows + part * TILE, k * 32, first_lanes(size / 2 - k * TILE),
                      tiles->keys + (part * steps + k) * TILE_BYTES);
    find_numbers(layer, kept_at(layer, layer->values, kv_head * size), places, KEYS, room, rows);
    for (int pair = 0; pair < KEYS / 2; pair++)
        for (int i = 0; i < columns; i++) {
            __m512i even = widen(rows[2 * pair] + i * TILE),
                    odd = widen(rows[2 * pair + 1] + i * TILE);
            char *tile = tiles->values + ((pair / 16) * columns + i) * TILE_BYTES;
            _mm512_storeu_si512(tile + (pair % 16) * 64,
                                _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
        }
}

/* [16 tokens, 64 keys] of one head. */
static void score_tiles(const bf16 *query, int stride, int size, const KeyTiles *tiles,
                        float *scores) {
    const int steps = padded_head(size) / 32, part = steps * TILE_BYTES;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < steps; k++) {
        const char *keys = tiles->keys + k * TILE_BYTES;
        _tile_loadd(4, query + k * 32, stride * 2);
        _tile_loadd(6, keys, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, keys + part, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(6, keys + 2 * part, 64);
        _tile_dpbf16ps(2, 4, 6);
        _tile_loadd(7, keys + 3 * part, 64);
        _tile_dpbf16ps(3, 4, 7);
    }
    _tile_stored(0, scores, KEYS * 4);
    _tile_stored(1, scores + 16, KEYS * 4);
    _tile_stored(2, scores + 32, KEYS * 4);
    _tile_stored(3, scores + 48, KEYS * 4);
}

/* Which of the 64 keys from `from` on a token sees: those up to itself, within the window. */
static uint64_t seen_keys(const Layer *layer, int position, int from) {
    const int last = position - from;
    const int lowest = layer->window ? last - layer->window + 1 : 0;
    uint64_t seen = last >= 63 ? ~0ull : last < 0 ? 0 : (1ull << (last + 1)) - 1;
    if (lowest > 63) return 0;
    return lowest > 0 ? seen & ~0ull << lowest : seen;
}

/* One token's scores to weights; what it has summed fades where a higher score has come. `number`:
 * the head's; `distance`: of the first key behind the token. */
static void weigh_row(const Layer *layer, HeadTile *head, int number, int row, uint64_t seen,
                      int distance, const float *scores, bf16 *weights) {
    const int size = layer->head_dim;
    __m512 found[4], highest = _mm512_set1_ps(-INFINITY), added = _mm512_setzero_ps();
    for (int i = 0; i < 4; i++) {
        found[i] = scored(layer, _mm512_load_ps(scores + i * 16), number, distance + i * 16);
        found[i] =
            _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), (__mmask16)(seen >> (16 * i)), found[i]);
        highest = _mm512_max_ps(highest, found[i]);
    }
    const float peak = fmaxf(head->most[row], _mm512_reduce_max_ps(highest));
    for (int i = 0; i < 4; i++) {
        found[i] = exponential(_mm512_sub_ps(found[i], _mm512_set1_ps(peak)));
        found[i] = _mm512_maskz_mov_ps((__mmask16)(seen >> (16 * i)), found[i]);
        store_bf16(weights + i * 16, found[i]);
        added = _mm512_add_ps(added, found[i]);
    }
    if (peak != head->most[row]) {
        const float fade = head->most[row] == -INFINITY ? 0.0f : expf(head->most[row] - peak);
        multiply_by(head->sums + row * size, size, fade);
        head->total[row] *= fade;
        head->most[row] = peak;
    }
    head->total[row] += _mm512_reduce_add_ps(added);
}

static void add_values(HeadTile *head, int size, const bf16 *weights, const KeyTiles *tiles) {
    const int columns = size / TILE;
    for (int i = 0; i < columns; i++) {
        _tile_loadd(0, head->sums + i * TILE, size * 4);
        _tile_loadd(4, weights, KEYS * 2);
        _tile_loadd(6, tiles->values + i * TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, weights + 32, KEYS * 2);
        _tile_loadd(7, tiles->values + (columns + i) * TILE_BYTES, 64);
        _tile_dpbf16ps(0, 5, 7);
        _tile_stored(0, head->sums + i * TILE, size * 4);
    }
}

/* Up to 16 tokens of one sequence, from `first` on; the heads that share a key/value head. */
static void attend_tile(const Model *model, const Layer *layer, const Step *step, const Buffers *b,
                        int sequence, int first, int kv_head, Work *work) {
    const int size = layer->head_dim, group = layer->heads / layer->kv_heads;
    const int padded_size = padded_head(size), first_head = kv_head * group;
    const Span span = span_of(layer, step, sequence, first);
    const int64_t place = (int64_t)first * layer->heads + first_head; /* in heads */
    KeyTiles tiles;
    HeadTile heads[MAX_GROUP];
    float scores[TILE * KEYS] __attribute__((aligned(64)));
    bf16 weights[TILE * KEYS] __attribute__((aligned(64)));
    memset(weights, 0, sizeof weights); /* rows that only fill up the tile */
    for (int h = 0; h < group; h++) {
        memset(heads[h].sums, 0, sizeof(float) * TILE * size);
        for (int row = 0; row < TILE; row++)
            heads[h].most[row] = -INFINITY, heads[h].total[row] = 0;
    }
    for (int from = span.begin; from < span.length; from += KEYS) {
        int64_t places[KEYS];
        find_rows(model, layer, step, sequence, from, span.length, places);
        load_tiles(layer, kv_head, places, &tiles);
        for (int h = 0; h < group; h++) {
            score_tiles(b->query + (place + h) * padded_size, layer->heads * padded_size, size,
                        &tiles, scores);
            for (int row = 0; row < span.tokens; row++) {
                const int position = (int)step->positions[first + row];
                const uint64_t seen = seen_keys(layer, position, from);
                if (seen)
                    weigh_row(layer, heads + h, first_head + h, row, seen, from - position,
                              scores + row * KEYS, weights + row * KEYS);
                else
                    memset(weights + row * KEYS, 0, KEYS * sizeof(bf16));
            }
            add_values(heads + h, size, weights, &tiles);
        }
    }
    if (!may_keep(work)) return;
    for (int h = 0; h < group; h++)
        for (int row = 0; row < span.tokens; row++)
            store_share(heads[h].sums + row * size, size, heads[h].total[row] * value_factor(layer),
                        b->attended + (place + (int64_t)row * layer->heads + h) * size);
    kept(work);
}
