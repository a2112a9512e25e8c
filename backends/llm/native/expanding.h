/* Codes to bfloat16, in the order of packed numbers: worth it where many rows read them. */
#pragma once
#include "codes.h"

/* What 16 columns' codes of a group are worth: worth * scale + offset, where a table may stand for
 * the codes. */
typedef struct {
    __m512 scale, offset;
} Worth;

static inline Worth worth_of(const Matrix *matrix, const PanelCodes *panel, int group, int half) {
    const __m512 scale = load_floats(matrix, panel->scales, group, half);
    const __m512 least =
        panel->minimums ? load_floats(matrix, panel->minimums, group, half) : _mm512_setzero_ps();
    const __m512 zero = _mm512_set1_ps(matrix->worth == WHOLE ? (float)matrix->zero : 0.0f);
    return (Worth){scale, _mm512_fnmadd_ps(zero, scale, least)};
}

/* e4m3: the bits of a float32 of another exponent. */
static inline __m512 from_float8(__m512i codes) {
    const __m512i sign = _mm512_slli_epi32(_mm512_and_si512(codes, _mm512_set1_epi32(128)), 24);
    const __m512i rest = _mm512_slli_epi32(_mm512_and_si512(codes, _mm512_set1_epi32(127)), 20);
    return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_or_si512(sign, rest)),
                         _mm512_set1_ps(0x1p120f));
}

/* What 16 codes are worth, before they are scaled. */
INLINE __m512 numbers_of(const int worth, const Matrix *matrix, __m512i codes) {
    switch (worth) {
    case TABLE: return _mm512_permutexvar_ps(codes, _mm512_loadu_ps(matrix->table));
    case FLOAT8: return from_float8(codes);
    default: return _mm512_cvtepi32_ps(codes);
    }
}

/* One of the four inputs in each lane. */
INLINE __m512 one_of_four(const int kind, const Matrix *matrix, __m512i codes, const int place,
                          Worth worth) {
    __m512i code = _mm512_srli_epi32(codes, 8 * place);
    if (place < 3) code = _mm512_and_si512(code, _mm512_set1_epi32(255));
    return _mm512_fmadd_ps(numbers_of(kind, matrix, code), worth.scale, worth.offset);
}

/* Lane by lane side by side. */
INLINE __m512i in_pairs(__m512 even, __m512 odd) {
    static const uint16_t order[32] __attribute__((aligned(64))) = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31,
    };
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    return _mm512_permutexvar_epi16(_mm512_load_si512(order), halves);
}

/* 32 inputs of half a panel, from `chunk` * 32 on, to a tile. */
INLINE void expand_half(const int bits, const int kind, const Matrix *matrix,
                        const PanelCodes *panel, int chunk, int half, bf16 *to) {
    const Planes planes = planes_at(bits, panel, chunk, half);
    for (int line = 0; line < plane_bytes(low_bits(bits)) / 2; line += 64)
        _mm_prefetch(planes.low + 8 * plane_bytes(low_bits(bits)) + line, _MM_HINT_T0);
    const int first = chunk * 32 / matrix->group, last = (chunk * 32 + 16) / matrix->group;
    const Worth worths[2] = {worth_of(matrix, panel, first, half),
                             worth_of(matrix, panel, last, half)};
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++, to += 64) {
        const __m512i codes = codes_at(bits, planes, i);
        const Worth worth = worths[i / 4];
        _mm512_storeu_si512(to, in_pairs(one_of_four(kind, matrix, codes, 0, worth),
                                         one_of_four(kind, matrix, codes, 1, worth)));
        _mm512_storeu_si512(to + 32, in_pairs(one_of_four(kind, matrix, codes, 2, worth),
                                              one_of_four(kind, matrix, codes, 3, worth)));
    }
}

INLINE void expand_chunks(const int bits, const int kind, const Matrix *matrix,
                          const PanelCodes *panel, int from, int to, bf16 *tiles) {
    for (int half = from * 2; half < to * 2; half++, tiles += TILE * 32)
        expand_half(bits, kind, matrix, panel, half / 2, half % 2, tiles);
}

/* The inputs from `from` to `to`, multiples of 32. */
static void expand(const Matrix *matrix, const PanelCodes *panel, int from, int to, bf16 *tiles) {
    from /= 32, to /= 32;
    switch (matrix->worth) {
    case TABLE: expand_chunks(4, TABLE, matrix, panel, from, to, tiles); break;
    case FLOAT8: expand_chunks(8, FLOAT8, matrix, panel, from, to, tiles); break;
    default: FOR_BITS(matrix->bits, expand_chunks, WHOLE, matrix, panel, from, to, tiles)
    }
}

/* One column's inputs. */
static void expand_column(const Matrix *matrix, int depth, int column, float *to) {
    const int panel = column / PANEL, half = column % PANEL / TILE, lane = column % TILE;
    const PanelCodes codes = panel_codes(matrix, depth, panel);
    float numbers[TILE], scales[TILE], offsets[TILE];
    for (int from = 0; from < depth; from += TILE) {
        const Worth worth = worth_of(matrix, &codes, from / matrix->group, half);
        __m512i found = _mm512_setzero_si512();
        for (int i = 0; i < TILE; i++)
            found = _mm512_mask_set1_epi32(found, 1u << i,
                                           code_at(matrix->bits, &codes, from + i, half, lane));
        _mm512_storeu_ps(numbers, numbers_of(matrix->worth, matrix, found));
        _mm512_storeu_ps(scales, worth.scale);
        _mm512_storeu_ps(offsets, worth.offset);
        for (int i = 0; i < TILE; i++)
            to[matrix->order ? matrix->order[from + i] : from + i] =
                numbers[i] * scales[lane] + offsets[lane];
    }
}
