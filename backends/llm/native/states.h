/* Keys and values as they are kept, one head's of a position at a time: as bfloat16, or in 8 bits,
 * by a factor that all of a layer share. */
#pragma once
#include <string.h>

#include "vectors.h"

static inline int is_8bit(const Layer *layer) {
    return layer->key_factor != 0;
}

static inline float value_factor(const Layer *layer) {
    return is_8bit(layer) ? layer->value_factor : 1.0f;
}

/* Numbers `place` of keys or values and on. */
static inline char *kept_at(const Layer *layer, void *states, int64_t place) {
    return (char *)states + (is_8bit(layer) ? place : 2 * place);
}

/* 32 of e4m3 to bfloat16. What has another exponent than 0 gets that of bfloat16; the others are so
 * many times 2^-9. */
static inline __m512i numbers_of_8_bits(__m256i bytes) {
    static const uint16_t small[32] __attribute__((aligned(64))) = {
        0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60,
    };
    const __m512i wide = _mm512_cvtepu8_epi16(bytes);
    const __m512i rest = _mm512_and_si512(wide, _mm512_set1_epi16(0x7f));
    const __m512i sign = _mm512_slli_epi16(_mm512_sub_epi16(wide, rest), 8);
    const __mmask32 is_small = _mm512_testn_epi16_mask(wide, _mm512_set1_epi16(0x78));
    __m512i found = _mm512_add_epi16(_mm512_slli_epi16(rest, 4), _mm512_set1_epi16((127 - 7) << 7));
    found = _mm512_mask_permutexvar_epi16(found, is_small, rest, _mm512_load_si512(small));
    return _mm512_or_si512(found, sign);
}

/* 16 numbers to the nearest of e4m3, the even one of two; those beyond its largest become that. */
static inline __m128i in_8_bits(__m512 numbers) {
    const __m512i bits = _mm512_castps_si512(numbers);
    const __m512 size = _mm512_min_ps(_mm512_abs_ps(numbers), _mm512_set1_ps(448.0f));
    const __m512i exact = _mm512_castps_si512(size);
    const __m512i is_odd = _mm512_and_si512(_mm512_srli_epi32(exact, 20), _mm512_set1_epi32(1));
    __m512i code = _mm512_add_epi32(_mm512_add_epi32(exact, _mm512_set1_epi32(0x7ffff)), is_odd);
    code = _mm512_sub_epi32(_mm512_srli_epi32(code, 20), _mm512_set1_epi32((127 - 7) << 3));
    const __mmask16 is_small = _mm512_cmp_ps_mask(size, _mm512_set1_ps(0x1p-6f), _CMP_LT_OQ);
    code = _mm512_mask_cvtps_epi32(code, is_small, _mm512_mul_ps(size, _mm512_set1_ps(0x1p9f)));
    const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(bits, 24), _mm512_set1_epi32(0x80));
    return _mm512_cvtepi32_epi8(_mm512_or_si512(code, sign));
}

/* Keeps a head's numbers at `to`, by `factor`. */
static inline void keep_head(const Layer *layer, const bf16 *head, float factor, char *to) {
    const int size = layer->head_dim;
    if (!is_8bit(layer)) {
        memcpy(to, head, size * sizeof(bf16));
        return;
    }
    for (int i = 0; i < size; i += TILE)
        _mm_storeu_si128((__m128i *)(to + i),
                         in_8_bits(_mm512_mul_ps(load_bf16(head + i), _mm512_set1_ps(factor))));
}

/* Where a head's numbers of `count` positions can be read, which are kept `places` behind `states`:
 * there, or in `room`, [count, head size]. */
static inline void find_numbers(const Layer *layer, const char *states, const int64_t *places,
                                int count, bf16 *room, const bf16 **numbers) {
    const int size = layer->head_dim;
    if (!is_8bit(layer)) {
        for (int i = 0; i < count; i++) numbers[i] = (const bf16 *)states + places[i];
        return;
    }
    for (int i = 0; i < count; i++, room += size) {
        const char *from = states + places[i];
        int k = 0;
        numbers[i] = room;
        for (; k + 32 <= size; k += 32)
            _mm512_storeu_si512(room + k,
                                numbers_of_8_bits(_mm256_loadu_si256((const __m256i *)(from + k))));
        if (k == size) continue;
        const __m128i last = _mm_loadu_si128((const __m128i *)(from + k));
        _mm256_storeu_si256((__m256i *)(room + k), _mm512_castsi512_si256(numbers_of_8_bits(
                                                       _mm256_castsi128_si256(last))));
    }
}
