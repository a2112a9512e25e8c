/* Norms of rows; models/norms.py says what they must give. */
#pragma once
#include "vectors.h"

/* What a row's numbers are brought to, before the norm's weights: (x - mean) * factor. */
typedef struct {
    __m512 mean, factor;
} Spread;

static inline Spread spread_of(const Norm *norm, const float *row, int size) {
    __m512 mean = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    if (norm->kind == LAYER_NORM) {
        for (int i = 0; i < size; i += TILE) mean = _mm512_add_ps(mean, _mm512_loadu_ps(row + i));
        mean = _mm512_set1_ps(_mm512_reduce_add_ps(mean) / size);
    }
    for (int i = 0; i < size; i += TILE) {
        __m512 x = _mm512_sub_ps(_mm512_loadu_ps(row + i), mean);
        squares = _mm512_fmadd_ps(x, x, squares);
    }
    float factor = 1.0f / sqrtf(_mm512_reduce_add_ps(squares) / size + norm->eps);
    return (Spread){mean, _mm512_set1_ps(factor)};
}

/* 16 numbers of a row, from `i` on. */
static inline __m512 normed(const Norm *norm, Spread spread, const float *row, int i) {
    __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(row + i), spread.mean), spread.factor);
    if (norm->kind == RMS_ROUNDED) x = rounded(x);
    x = _mm512_mul_ps(x, _mm512_loadu_ps(norm->weight + i));
    return norm->bias ? _mm512_add_ps(x, _mm512_loadu_ps(norm->bias + i)) : x;
}

/* For a product to read. No norm only rounds. */
static void normalise(const Norm *norm, const float *row, int size, bf16 *to) {
    if (norm->kind == NO_NORM) {
        for (int i = 0; i < size; i += TILE) store_bf16(to + i, _mm512_loadu_ps(row + i));
        return;
    }
    const Spread spread = spread_of(norm, row, size);
    for (int i = 0; i < size; i += TILE) store_bf16(to + i, normed(norm, spread, row, i));
}

static void normalise_in_place(const Norm *norm, float *row, int size) {
    const Spread spread = spread_of(norm, row, size);
    for (int i = 0; i < size; i += TILE) _mm512_storeu_ps(row + i, normed(norm, spread, row, i));
}

/* Adds a normed row, by a multiplier, to another. */
static void add_normed(const Norm *norm, const float *row, int size, float multiplier, float *to) {
    const Spread spread = spread_of(norm, row, size);
    const __m512 factor = _mm512_set1_ps(multiplier);
    for (int i = 0; i < size; i += TILE) {
        __m512 sum = _mm512_loadu_ps(to + i);
        _mm512_storeu_ps(to + i, _mm512_fmadd_ps(normed(norm, spread, row, i), factor, sum));
    }
}

/* Heads that lie side by side, each by weights of its own or all as one. */
static void normalise_heads(const Norm *norm, float *heads, int count, int size, int joins) {
    if (joins) {
        normalise_in_place(norm, heads, count * size);
        return;
    }
    Norm own = *norm;
    for (int head = 0; head < count; head++) {
        normalise_in_place(&own, heads + head * size, size);
        own.weight += size;
        if (own.bias) own.bias += size;
    }
}
