/* Attention over the paged cache, a token at a time, by vectors. */
#pragma once
#include <string.h>

#include "states.h"
#include "walk.h"

/* The sums of 16 vectors, one in each lane. */
static inline __m512 sum_each(__m512 *v) {
#pragma GCC unroll 16
    for (int i = 0; i < 8; i++) /* neighbours in pairs of lanes */
        v[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(v[2 * i]), b = _mm512_castps_pd(v[2 * i + 1]);
        v[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
#pragma GCC unroll 16
    for (int i = 0; i < 2; i++)
        v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x88),
                         _mm512_shuffle_f32x4(v[0], v[1], 0xdd));
}

/* Scores of one query against 16 keys. */
static inline __attribute__((always_inline)) __m512 score(const bf16 *query,
                                                          const bf16 *const *keys, const int size) {
    __m512 products[16];
#pragma GCC unroll 16
    for (int key = 0; key < 16; key++) {
        products[key] = _mm512_setzero_ps();
#pragma GCC unroll 16
        for (int i = 0; i < size; i += 32)
            products[key] = _mm512_dpbf16_ps(products[key], (__m512bh)_mm512_loadu_si512(query + i),
                                             (__m512bh)_mm512_loadu_si512(keys[key] + i));
    }
    return sum_each(products);
}

/* The same for a size that is any multiple of 16. */
static __m512 score_any(const bf16 *query, const bf16 *const *keys, int size) {
    __m512 products[16];
    for (int key = 0; key < 16; key++) {
        products[key] = _mm512_setzero_ps();
        for (int i = 0; i < size; i += 32) {
            const __mmask32 there = size - i < 32 ? 0xffff : 0xffffffff;
            products[key] =
                _mm512_dpbf16_ps(products[key], (__m512bh)_mm512_loadu_si512(query + i),
                                 (__m512bh)_mm512_maskz_loadu_epi16(there, keys[key] + i));
        }
    }
    return sum_each(products);
}

static inline __m512 score_16(const bf16 *query, const bf16 *const *keys, int size) {
    switch (size) {
    case 64: return score(query, keys, 64);
    case 128: return score(query, keys, 128);
    case 256: return score(query, keys, 256);
    default: return score_any(query, keys, size);
    }
}

/* Sums to scores, of keys from `distance` behind the query on (0: its own, before: negative). */
static inline __m512 scored(const Layer *layer, __m512 sums, int head, int distance) {
    sums = _mm512_mul_ps(sums, _mm512_set1_ps(layer->scale));
    if (layer->score_cap) sums = capped(sums, layer->score_cap);
    if (layer->slopes) {
        const __m512 lanes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        __m512 places = _mm512_add_ps(lanes, _mm512_set1_ps((float)distance));
        sums = _mm512_fmadd_ps(places, _mm512_set1_ps(layer->slopes[head]), sums);
    }
    return sums;
}

/* One query head's way through the keys: its highest score, and its sums weighted by it. */
typedef struct {
    float most, total;
    float sums[MAX_HEAD];
} Head;

/* Adds weighted values to the sums of `heads` queries that share them: `size` columns of a head
 * from `column` on. */
static inline __attribute__((always_inline)) void weigh(const int heads, const int size, int column,
                                                        const float *weights,
                                                        const bf16 *const *values, int count,
                                                        Head *head) {
    __m512 total[4][128 / TILE];
#pragma GCC unroll 16
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 16
        for (int i = 0; i < size / TILE; i++)
            total[h][i] = _mm512_loadu_ps(head[h].sums + column + i * TILE);
    for (int place = 0; place < count; place++)
#pragma GCC unroll 16
        for (int i = 0; i < size / TILE; i++) {
            __m512 value = load_bf16(values[place] + column + i * TILE);
#pragma GCC unroll 16
            for (int h = 0; h < heads; h++)
                total[h][i] =
                    _mm512_fmadd_ps(_mm512_set1_ps(weights[h * KEYS + place]), value, total[h][i]);
        }
#pragma GCC unroll 16
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 16
        for (int i = 0; i < size / TILE; i++)
            _mm512_storeu_ps(head[h].sums + column + i * TILE, total[h][i]);
}

/* As many columns at a time as fit into registers. */
static void weigh_some(int heads, int size, const float *weights, const bf16 *const *values,
                       int count, Head *head) {
    for (int column = 0, width; column < size; column += width) {
        const int left = size - column;
        width = left >= 128 && heads <= 2 ? 128 : left >= 64 ? 64 : TILE;
        switch (width + heads) {
        case 17: weigh(1, 16, column, weights, values, count, head); break;
        case 18: weigh(2, 16, column, weights, values, count, head); break;
        case 19: weigh(3, 16, column, weights, values, count, head); break;
        case 20: weigh(4, 16, column, weights, values, count, head); break;
        case 65: weigh(1, 64, column, weights, values, count, head); break;
        case 66: weigh(2, 64, column, weights, values, count, head); break;
        case 67: weigh(3, 64, column, weights, values, count, head); break;
        case 68: weigh(4, 64, column, weights, values, count, head); break;
        case 129: weigh(1, 128, column, weights, values, count, head); break;
        default: weigh(2, 128, column, weights, values, count, head); break;
        }
    }
}

static void weigh_heads(int heads, int size, const float *weights, const bf16 *const *values,
                        int count, Head *head) {
    const int most = size % 128 ? 4 : 2;
    while (heads > 0) {
        const int some = heads > most ? most : heads;
        weigh_some(some, size, weights, values, count, head);
        heads -= some, weights += some * KEYS, head += some;
    }
}

/* Where the first head's keys (or values) of positions `from` ... lie, in units of the cache's
 * numbers; those past `to` stand in as `to` - 1. */
static inline void find_rows(const Model *model, const Layer *layer, const Step *step, int sequence,
                             int from, int to, int64_t *rows) {
    const int32_t *table = step->tables + (int64_t)sequence * step->most_blocks;
    const int64_t slot_size = (int64_t)layer->kv_heads * layer->head_dim;
    for (int i = 0; i < KEYS; i++) {
        int place = from + i < to ? from + i : to - 1;
        rows[i] = ((int64_t)table[place / model->block_size] * model->block_size +
                   place % model->block_size) *
                  slot_size;
    }
}

static inline void prefetch_rows(const Layer *layer, void *states, const int64_t *rows, int size) {
    for (int i = 0; i < KEYS; i++)
        for (int line = 0; line < size; line += is_8bit(layer) ? 64 : 32)
            _mm_prefetch(kept_at(layer, states, rows[i] + line), _MM_HINT_T1);
}

/* Weights of `count` keys, the first of them `distance` behind the query; what the head has summed
 * fades where a higher score has come. `number`: the head's. */
static inline void look(const Layer *layer, Head *head, int number, const bf16 *query,
                        const bf16 *const *keys, int count, int distance, float *weights) {
    const int size = layer->head_dim;
    __m512 highest = _mm512_set1_ps(-INFINITY), added = _mm512_setzero_ps();
    for (int i = 0; i < count; i += 16) {
        __m512 found = scored(layer, score_16(query, keys + i, size), number, distance + i);
        if (count - i < 16)
            found = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), (1u << (count - i)) - 1, found);
        _mm512_store_ps(weights + i, found);
        highest = _mm512_max_ps(highest, found);
    }
    const float peak = fmaxf(head->most, _mm512_reduce_max_ps(highest));
    const float fade = head->most == -INFINITY ? 0.0f : expf(head->most - peak);
    for (int i = 0; i < count; i += 16) {
        __m512 weight =
            exponential(_mm512_sub_ps(_mm512_load_ps(weights + i), _mm512_set1_ps(peak)));
        if (count - i < 16) weight = _mm512_maskz_mov_ps((1u << (count - i)) - 1, weight);
        _mm512_store_ps(weights + i, weight);
        added = _mm512_add_ps(added, weight);
    }
    if (fade != 1.0f) multiply_by(head->sums, size, fade);
    head->total = head->total * fade + _mm512_reduce_add_ps(added);
    head->most = peak;
}

/* One query token, by online softmax over 64 keys at a time. Heads from `kv_from` to `kv_to` go
 * together, because their keys are neighbours in memory. */
static void attend_token(const Model *model, const Layer *layer, const Step *step, const Buffers *b,
                         int sequence, int token, int kv_from, int kv_to, Work *work) {
    const int size = layer->head_dim, group = layer->heads / layer->kv_heads;
    const int stride = padded_head(size), first_head = kv_from * group;
    const int length = (int)step->positions[token] + 1, width = (kv_to - kv_from) * size;
    const int begin = layer->window && length > layer->window ? length - layer->window : 0;
    const int64_t place = (int64_t)token * layer->heads + first_head; /* in heads */
    char *first_keys = kept_at(layer, layer->keys, kv_from * size),
         *first_values = kept_at(layer, layer->values, kv_from * size);
    const bf16 *keys[KEYS], *values[KEYS];
    bf16 key_room[KEYS * MAX_HEAD], value_room[KEYS * MAX_HEAD]; /* of 8 bits */
    int64_t rows[KEYS], next[KEYS];
    float weights[MAX_GROUP * KEYS] __attribute__((aligned(64)));
    Head heads[MAX_HEADS];
    for (int h = 0; h < (kv_to - kv_from) * group; h++) {
        memset(heads[h].sums, 0, size * sizeof(float));
        heads[h].most = -INFINITY, heads[h].total = 0;
    }
    find_rows(model, layer, step, sequence, begin, length, next);
    for (int from = begin; from < length; from += KEYS) {
        const int count = length - from < KEYS ? length - from : KEYS;
        memcpy(rows, next, sizeof rows);
        if (from + KEYS < length) {
            find_rows(model, layer, step, sequence, from + KEYS, length, next);
            prefetch_rows(layer, first_keys, next, width);
            prefetch_rows(layer, first_values, next, width);
        }
        for (int kv_head = 0; kv_head < kv_to - kv_from; kv_head++) {
            Head *mine = heads + kv_head * group;
            const int64_t head = kv_head * size;
            find_numbers(layer, kept_at(layer, first_keys, head), rows, KEYS, key_room, keys);
            find_numbers(layer, kept_at(layer, first_values, head), rows, KEYS, value_room, values);
            for (int h = 0; h < group; h++) {
                const int number = kv_head * group + h;
                look(layer, mine + h, first_head + number, b->query + (place + number) * stride,
                     keys, count, from - length + 1, weights + h * KEYS);
            }
            weigh_heads(group, size, weights, values, count, mine);
        }
    }
    if (!may_keep(work)) return;
    for (int h = 0; h < (kv_to - kv_from) * group; h++)
        store_share(heads[h].sums, size, heads[h].total * value_factor(layer),
                    b->attended + (place + h) * size);
    kept(work);
}
