/* What lies between an MLP's products, by kind. */
#pragma once
#include "vectors.h"

/* The share of a normal distribution below x, by Abramowitz and Stegun's formula 7.1.26. */
static inline __m512 normal_share(__m512 x) {
    __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
    __m512 t = _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), _mm512_set1_ps(1.0f));
    t = _mm512_div_ps(_mm512_set1_ps(1.0f), t);
    __m512 p = _mm512_set1_ps(0.5f * 1.061405429f);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.5f * -1.453152027f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.5f * 1.421413741f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.5f * -0.284496736f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.5f * 0.254829592f));
    __m512 decay = exponential(_mm512_fnmadd_ps(z, z, _mm512_setzero_ps()));
    __m512 beyond = _mm512_mul_ps(_mm512_mul_ps(p, t), decay); /* of |x| */
    __mmask16 is_positive = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_mask_sub_ps(beyond, is_positive, _mm512_set1_ps(1.0f), beyond);
}

/* tanh(sqrt(2 / pi) * (x + 0.044715 x^3)) as a sigmoid of twice that. */
static inline __m512 tanh_share(__m512 x) {
    __m512 cubed = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    __m512 inner = _mm512_fmadd_ps(cubed, _mm512_set1_ps(0.044715f), x);
    return sigmoid(_mm512_mul_ps(inner, _mm512_set1_ps(2.0f * 0.79788456f)));
}

static inline __m512 activate(int kind, __m512 x) {
    __m512 positive = _mm512_max_ps(x, _mm512_setzero_ps());
    switch (kind) {
    case GELU: return _mm512_mul_ps(x, normal_share(x));
    case GELU_TANH: return _mm512_mul_ps(x, tanh_share(x));
    case GELU_SIGMOID: return _mm512_mul_ps(x, sigmoid(_mm512_mul_ps(x, _mm512_set1_ps(1.702f))));
    case RELU: return positive;
    case RELU_SQUARED: return _mm512_mul_ps(positive, positive);
    default: return _mm512_mul_ps(x, sigmoid(x));
    }
}
