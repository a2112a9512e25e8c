/* Codes to bfloat16, in the order of packed numbers: worth it where more than a few rows read
 * them. */
#pragma once
#include "codes.h"

/* What 16 columns' codes of a group are worth: number * scale + offset; see `number_at`. */
typedef struct {
    __m512 scale, offset;
} Worth;

/* A whole code's number is 1 + code / STEPS: its bits are those behind the ones of 1. */
enum { STEPS = 256, CODE_BIT = 15, ONE = 0x3f800000 };

static inline Worth worth_of(const Matrix *matrix, const PanelCodes *panel, int group, int half) {
    const __m512 scale = load_floats(matrix, panel->scales, group, half);
    const __m512 least =
        panel->minimums ? load_floats(matrix, panel->minimums, group, half) : _mm512_setzero_ps();
    if (matrix->worth != WHOLE) return (Worth){scale, least};
    return (Worth){_mm512_mul_ps(scale, _mm512_set1_ps(STEPS)),
                   _mm512_fnmadd_ps(_mm512_set1_ps((float)(matrix->zero + STEPS)), scale, least)};
}

/* e4m3 in the lowest bits: the bits of a float32 of another exponent. */
static inline __m512 from_float8(__m512i codes) {
    const __m512i sign = _mm512_slli_epi32(_mm512_and_si512(codes, _mm512_set1_epi32(128)), 24);
    const __m512i rest = _mm512_slli_epi32(_mm512_and_si512(codes, _mm512_set1_epi32(127)), 20);
    return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_or_si512(sign, rest)),
                         _mm512_set1_ps(0x1p120f));
}

INLINE __m512i shifted(__m512i lanes, const int right) {
    if (!right) return lanes;
    return right > 0 ? _mm512_srli_epi32(lanes, right) : _mm512_slli_epi32(lanes, -right);
}

/* Of each lane the code of `width` bits from bit `at` on, before it is scaled. */
INLINE __m512 number_at(const int worth, const int width, const Matrix *matrix, __m512i lanes,
                        const int at) {
    enum { BOTH_OR_THIRD = 0xea };
    const __m512i mask = _mm512_set1_epi32(((1 << width) - 1) << CODE_BIT);
    switch (worth) {
    case TABLE: /* of which the lowest four bits of a place count */
        return _mm512_permutexvar_ps(shifted(lanes, at), _mm512_loadu_ps(matrix->table));
    case FLOAT8: return from_float8(shifted(lanes, at));
    default:
        return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(
            shifted(lanes, at - CODE_BIT), mask, _mm512_set1_epi32(ONE), BOTH_OR_THIRD));
    }
}

/* A vector of codes, and the bit where each byte's begins. */
typedef struct {
    __m512i vector;
    int at;
} Lanes;

/* The i-th as it lies, where one plane has all of it. */
INLINE Lanes lanes_at(const int bits, Planes planes, const int i) {
    const int sharing = 8 / bits;
    if (low_bits(bits) != bits) return (Lanes){codes_at(bits, planes, i), 0};
    return (Lanes){_mm512_loadu_si512(planes.low + 64 * (i / sharing)), bits * (i % sharing)};
}

/* One of the four inputs in each lane. */
INLINE __m512 one_of_four(const int bits, const int kind, const Matrix *matrix, Lanes lanes,
                          const int place, Worth worth) {
    const __m512 number = number_at(kind, bits, matrix, lanes.vector, lanes.at + 8 * place);
    return _mm512_fmadd_ps(number, worth.scale, worth.offset);
}

/* Lane by lane side by side, rounded to the nearest. */
INLINE __m512i in_pairs(__m512 even, __m512 odd) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    const __m512i low = _mm512_add_epi32(_mm512_castps_si512(even), half);
    const __m512i high = _mm512_add_epi32(_mm512_castps_si512(odd), half);
    return _mm512_mask_blend_epi16(0x55555555, high, _mm512_srli_epi32(low, 16));
}

/* 32 inputs of half a panel, from `chunk` * 32 on, to a tile. */
INLINE void expand_half(const int bits, const int kind, const Matrix *matrix,
                        const PanelCodes *panel, int chunk, int half, bf16 *to) {
    const Planes planes = planes_at(bits, panel, chunk, half);
    for (int line = 0; line < plane_bytes(low_bits(bits)) / 2; line += 64)
        _mm_prefetch(planes.low + 8 * plane_bytes(low_bits(bits)) + line, _MM_HINT_T0);
    const int first = chunk * 32 / matrix->group, last = (chunk * 32 + 16) / matrix->group;
    Worth worth = worth_of(matrix, panel, first, half);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++, to += 64) {
        const Lanes lanes = lanes_at(bits, planes, i);
        if (i == 4 && last != first) worth = worth_of(matrix, panel, last, half);
        _mm512_storeu_si512(to, in_pairs(one_of_four(bits, kind, matrix, lanes, 0, worth),
                                         one_of_four(bits, kind, matrix, lanes, 1, worth)));
        _mm512_storeu_si512(to + 32, in_pairs(one_of_four(bits, kind, matrix, lanes, 2, worth),
                                              one_of_four(bits, kind, matrix, lanes, 3, worth)));
    }
}

/* Tiles that are made one after the other, two for each 32 inputs, up to `end`. */
typedef struct {
    const Matrix *matrix;
    const PanelCodes *panel;
    int next, end;
    bf16 *to;
} Expanding;

INLINE void expand_tile(const int bits, const int kind, Expanding *e) {
    expand_half(bits, kind, e->matrix, e->panel, e->next / 2, e->next % 2, e->to);
    e->next++, e->to += TILE * 32;
}

static void expand_next(void *expanding) {
    Expanding *e = expanding;
    switch (e->matrix->worth) {
    case TABLE: expand_tile(4, TABLE, e); break;
    case FLOAT8: expand_tile(8, FLOAT8, e); break;
    default: FOR_BITS(e->matrix->bits, expand_tile, WHOLE, e)
    }
}

/* How many tiles the inputs up to `to` have, or all `depth` of them. */
static inline int tiles_before(int to, int depth) {
    return (to < depth ? to : depth) / TILE;
}

static void expand_rest(Expanding *e) {
    while (e->next < e->end) expand_next(e);
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
        _mm512_storeu_ps(numbers, number_at(matrix->worth, 8, matrix, found, 0));
        _mm512_storeu_ps(scales, worth.scale);
        _mm512_storeu_ps(offsets, worth.offset);
        for (int i = 0; i < TILE; i++)
            to[matrix->order ? matrix->order[from + i] : from + i] =
                numbers[i] * scales[lane] + offsets[lane];
    }
}
