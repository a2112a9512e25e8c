/* bfloat16 in and out of vectors, and functions of vectors. */
#pragma once
#include <immintrin.h>
#include <math.h>

#include "model.h"

#define INLINE static inline __attribute__((always_inline))

static inline __m512i widen(const bf16 *from) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
}

static inline __m512 load_bf16(const bf16 *from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(widen(from), 16));
}

/* Of the first numbers only, zeros for the others, which are not touched. */
static inline __m512 load_some_bf16(const bf16 *from, __mmask16 some) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline void store_bf16(bf16 *to, __m512 values) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(values));
}

static inline void store_some_bf16(bf16 *to, __mmask16 some, __m512 values) {
    _mm256_mask_storeu_epi16(to, some, (__m256i)_mm512_cvtneps_pbh(values));
}

/* To bfloat16 and back. */
static inline __m512 rounded(__m512 values) {
    __m256i halves = (__m256i)_mm512_cvtneps_pbh(values);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

/* The first of 16 that `count` numbers fill. */
static inline __mmask16 first_lanes(int count) {
    return (__mmask16)(count >= TILE ? 0xffff : (1u << count) - 1);
}

/* exp by 2^n * 2^f: Cody and Waite's reduction and a polynomial; 2e-7 relative. */
static inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.0f)), _mm512_set1_ps(-87.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 f = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    f = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), f);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(f, f), _mm512_add_ps(f, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

/* 1 / x by one of Newton's steps: 1e-7 relative, a quarter of a division's time. */
static inline __m512 reciprocal(__m512 x) {
    __m512 near = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(near, _mm512_fnmadd_ps(x, near, _mm512_set1_ps(2.0f)));
}

static inline __m512 sigmoid(__m512 x) {
    __m512 decay = exponential(_mm512_sub_ps(_mm512_setzero_ps(), x));
    return reciprocal(_mm512_add_ps(_mm512_set1_ps(1.0f), decay));
}

/* cap * tanh(x / cap). */
static inline __m512 capped(__m512 x, float cap) {
    __m512 share = sigmoid(_mm512_mul_ps(x, _mm512_set1_ps(2.0f / cap)));
    return _mm512_fmsub_ps(share, _mm512_set1_ps(2.0f * cap), _mm512_set1_ps(cap));
}

static inline void multiply_by(float *numbers, int count, float factor) {
    for (int i = 0; i < count; i += TILE)
        _mm512_storeu_ps(numbers + i,
                         _mm512_mul_ps(_mm512_loadu_ps(numbers + i), _mm512_set1_ps(factor)));
}

/* Sums to averages. */
static inline void store_share(const float *sums, int count, float total, bf16 *to) {
    const __m512 share = _mm512_set1_ps(1.0f / total);
    for (int i = 0; i < count; i += TILE)
        store_bf16(to + i, _mm512_mul_ps(_mm512_loadu_ps(sums + i), share));
}
