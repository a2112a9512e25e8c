/* Few rows in 8 bits times weights of codes: what costs is to read the weights. */
#pragma once
#include "codes.h"

/* Rows in 8 bits, 32 numbers of which share a scale. */
typedef struct {
    int8_t *codes; /* [rows, depth] */
    float *scales; /* [rows, depth / 32] */
    int32_t *sums; /* [rows, depth / 16]: of the codes */
} Rounded;

static inline int64_t rounded_bytes(int64_t rows, int64_t depth) {
    return rows * (depth + depth / 32 * 4 + depth / 16 * 4);
}

static Rounded rounded_in(char *memory, int64_t rows, int64_t depth) {
    Rounded made = {.codes = (int8_t *)memory};
    made.scales = (float *)(memory + rows * depth);
    made.sums = (int32_t *)(memory + rows * depth + rows * (depth / 32) * 4);
    return made;
}

/* Half of 32 numbers; returns the sum of their codes. */
static inline int32_t round_half(__m512 numbers, __m512 factor, int8_t *to) {
    const __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(numbers, factor));
    _mm_storeu_si128((__m128i *)to, _mm512_cvtsepi32_epi8(codes));
    return _mm512_reduce_add_epi32(codes);
}

static void round_row(const Rounded *to, int row, const bf16 *from, int depth) {
    int8_t *codes = to->codes + (int64_t)row * depth;
    float *scales = to->scales + (int64_t)row * (depth / 32);
    int32_t *sums = to->sums + (int64_t)row * (depth / 16);
    for (int i = 0; i < depth; i += 32) {
        const __m512 first = load_bf16(from + i), second = load_bf16(from + i + TILE);
        const float most =
            _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second)));
        const __m512 factor = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
        scales[i / 32] = most / 127.0f;
        sums[i / 16] = round_half(first, factor, codes + i);
        sums[i / 16 + 1] = round_half(second, factor, codes + i + TILE);
    }
}

/* What is read of one row for 32 inputs. */
typedef struct {
    const int8_t *codes;
    float scale;
    const int32_t *sums;
} RowChunk;

INLINE RowChunk row_chunk(const Rounded *rows, int row, int depth, int chunk) {
    return (RowChunk){rows->codes + (int64_t)row * depth + chunk * 32,
                      rows->scales[(int64_t)row * (depth / 32) + chunk],
                      rows->sums + (int64_t)row * (depth / 16) + chunk * 2};
}

/* Groups of 16 inputs: such as codes of these bits have in files. */
INLINE int is_fine(const int bits) {
    return bits == 2 || bits == 3 || bits == 6;
}

/* Whether rows in 8 bits can be multiplied with them. */
static inline int can_round(const Matrix *matrix) {
    return matrix->is_whole && (matrix->group > TILE || is_fine(matrix->bits));
}

/* Adds some of a chunk's inputs, `vectors` of 4 from `first` on, to the rows' sums of 16 columns.
 */
INLINE void add_group(const int bits, const int count, const int first, const int vectors,
                      const Matrix *matrix, const PanelCodes *panel, Planes planes, int group,
                      int half, const RowChunk *rows, __m512 *sums) {
    __m512i dots[4];
    int32_t totals[4];
#pragma GCC unroll 4
    for (int row = 0; row < count; row++) {
        totals[row] = rows[row].sums[first / 4] + (vectors == 8 ? rows[row].sums[1] : 0);
        dots[row] = _mm512_set1_epi32(-matrix->zero * totals[row]);
    }
#pragma GCC unroll 8
    for (int i = first; i < first + vectors; i++) {
        __m512i codes = codes_at(bits, planes, i);
        if (bits == 4 && matrix->worth == TABLE)
            codes = _mm512_shuffle_epi8(
                _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)matrix->worths)), codes);
#pragma GCC unroll 4
        for (int row = 0; row < count; row++) {
            int32_t four;
            memcpy(&four, rows[row].codes + 4 * i, 4);
            dots[row] = _mm512_dpbusd_epi32(dots[row], codes, _mm512_set1_epi32(four));
        }
    }
    const __m512 scale = load_floats(matrix, panel->scales, group, half);
#pragma GCC unroll 4
    for (int row = 0; row < count; row++)
        sums[row] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[row]),
                            _mm512_mul_ps(scale, _mm512_set1_ps(rows[row].scale)), sums[row]);
    if (!panel->minimums) return;
    const __m512 least = load_floats(matrix, panel->minimums, group, half);
#pragma GCC unroll 4
    for (int row = 0; row < count; row++)
        sums[row] =
            _mm512_fmadd_ps(least, _mm512_set1_ps(rows[row].scale * (float)totals[row]), sums[row]);
}

/* `count` rows from `row` on: [count, PANEL]. */
INLINE void sum_rounded(const int bits, const int count, const Matrix *matrix,
                        const PanelCodes *panel, const Rounded *rows, int row, int depth,
                        float *to) {
    __m512 sums[2][4];
    const int64_t step = plane_bytes(low_bits(bits));
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) sums[0][i] = sums[1][i] = _mm512_setzero_ps();
    for (int chunk = 0; chunk < depth / 32; chunk++) {
        RowChunk some[4];
        for (int line = 0; line < step; line += 64)
            _mm_prefetch(panel->low + (chunk + 6) * step + line, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int i = 0; i < count; i++) some[i] = row_chunk(rows, row + i, depth, chunk);
        const int group = chunk * 32 / matrix->group, last = (chunk * 32 + 16) / matrix->group;
        for (int half = 0; half < 2; half++) {
            const Planes planes = planes_at(bits, panel, chunk, half);
            if (is_fine(bits)) {
                add_group(bits, count, 0, 4, matrix, panel, planes, group, half, some, sums[half]);
                add_group(bits, count, 4, 4, matrix, panel, planes, last, half, some, sums[half]);
            } else {
                add_group(bits, count, 0, 8, matrix, panel, planes, group, half, some, sums[half]);
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
        _mm512_storeu_ps(to + i * PANEL, sums[0][i]);
        _mm512_storeu_ps(to + i * PANEL + TILE, sums[1][i]);
    }
}

/* As many rows at a time as have their sums in registers. */
INLINE void sum_rounded_rows(const int bits, const Matrix *matrix, const PanelCodes *panel,
                             const Rounded *rows, int row, int count, int depth, float *to) {
    for (int end = row + count, some; row < end; row += some, to += some * PANEL) {
        some = end - row >= 4 ? 4 : end - row >= 2 ? 2 : 1;
        switch (some) {
        case 1: sum_rounded(bits, 1, matrix, panel, rows, row, depth, to); break;
        case 2: sum_rounded(bits, 2, matrix, panel, rows, row, depth, to); break;
        default: sum_rounded(bits, 4, matrix, panel, rows, row, depth, to); break;
        }
    }
}

/* [count, PANEL] of the rows from `row` on times a panel. */
static void multiply_rounded(const Matrix *matrix, const PanelCodes *panel, const Rounded *rows,
                             int row, int count, int depth, float *to) {
    FOR_BITS(matrix->bits, sum_rounded_rows, matrix, panel, rows, row, count, depth, to)
}
