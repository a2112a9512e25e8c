/* Queries, keys and values from the product to where attention reads them. */
#pragma once
#include <string.h>

#include "norms.h"
#include "states.h"
#include "walk.h"

static void clip(float *numbers, int count, float most) {
    const __m512 above = _mm512_set1_ps(most), below = _mm512_set1_ps(-most);
    for (int i = 0; i < count; i += TILE) {
        __m512 x = _mm512_loadu_ps(numbers + i);
        _mm512_storeu_ps(numbers + i, _mm512_max_ps(_mm512_min_ps(x, above), below));
    }
}

/* Rotates the first `rotated` numbers of a head, whose halves turn together (GPT-NeoX), and rounds
 * all. */
static void rotate(const float *head, const bf16 *cosines, const bf16 *sines, int rotated, int size,
                   bf16 *to) {
    const int half = rotated / 2;
    for (int i = 0; i < half; i += TILE) {
        const __mmask16 some = first_lanes(half - i);
        __m512 first = _mm512_maskz_loadu_ps(some, head + i),
               second = _mm512_maskz_loadu_ps(some, head + half + i);
        __m512 cosine = load_some_bf16(cosines + i, some), sine = load_some_bf16(sines + i, some);
        store_some_bf16(to + i, some, _mm512_fnmadd_ps(second, sine, _mm512_mul_ps(first, cosine)));
        store_some_bf16(to + half + i, some,
                        _mm512_fmadd_ps(first, sine, _mm512_mul_ps(second, cosine)));
    }
    for (int i = rotated; i < size; i += TILE) {
        const __mmask16 some = first_lanes(size - i);
        store_some_bf16(to + i, some, _mm512_maskz_loadu_ps(some, head + i));
    }
}

/* One token's. */
static void place_token(const Layer *layer, const Step *step, const Buffers *b, int token) {
    const int size = layer->head_dim, heads = layer->heads, kv_heads = layer->kv_heads;
    const int padded_size = padded_head(size);
    const int64_t place = layer->is_turned_by_token ? token : step->positions[token];
    const int64_t turn = place * layer->rotated;
    int64_t slot = step->slots[token] * kv_heads * size;
    float *query = b->qkv + (int64_t)token * (heads + 2 * kv_heads) * size;
    float *key = query + heads * size, *value = key + kv_heads * size;
    bf16 *to = b->query + (int64_t)token * heads * padded_size;
    if (layer->query_norm.kind)
        normalise_heads(&layer->query_norm, query, heads, size, layer->joins_heads);
    if (layer->key_norm.kind)
        normalise_heads(&layer->key_norm, key, kv_heads, size, layer->joins_heads);
    if (layer->clip) clip(query, (heads + 2 * kv_heads) * size, layer->clip);
    for (int head = 0; head < heads; head++, query += size, to += padded_size) {
        rotate(query, layer->cosines + turn, layer->sines + turn, layer->rotated, size, to);
        memset(to + size, 0, (padded_size - size) * sizeof(bf16));
    }
    for (int head = 0; head < kv_heads; head++, key += size, value += size, slot += size) {
        bf16 numbers[MAX_HEAD];
        rotate(key, layer->cosines + turn, layer->sines + turn, layer->rotated, size, numbers);
        keep_head(layer, numbers, layer->key_factor, kept_at(layer, layer->keys, slot));
        for (int i = 0; i < size; i += TILE) store_bf16(numbers + i, _mm512_loadu_ps(value + i));
        keep_head(layer, numbers, layer->value_factor, kept_at(layer, layer->values, slot));
    }
}
