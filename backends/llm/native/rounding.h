/* Few rows in 8 bits times weights of codes: what costs is to read the weights. */
#pragma once
#include "codes.h"

/* Rows in 8 bits, 32 numbers of which share a scale. */
typedef struct {
    int8_t *codes; /* [rows, depth] */
    float *scales; /* [rows, depth / 32] */
    float *totals; /* [rows, depth / 32]: the sums of the codes, times their scale, */
    float *halves; /* [rows, depth / 16]: and of 16 of them */
} Rounded;

static inline int64_t rounded_bytes(int64_t rows, int64_t depth) {
    return rows * (depth / 32) * (32 + 4 + 4 + 8);
}

/* Whether rows are rounded where codes can be multiplied so. Tiles multiply more rows as fast as
 * weights are made numbers for them. */
static inline int may_round(const Model *model, int rows) {
    return !model->has_amx || rows <= FEW_ROWS;
}

static Rounded rounded_in(char *memory, int64_t rows, int64_t depth) {
    const int64_t chunks = rows * (depth / 32);
    Rounded made = {.codes = (int8_t *)memory};
    made.scales = (float *)(memory + chunks * 32);
    made.totals = made.scales + chunks;
    made.halves = made.totals + chunks;
    return made;
}

/* Half of 32 numbers; returns the sum of their codes. */
static inline int32_t round_half(__m512 numbers, __m512 factor, int8_t *to) {
    const __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(numbers, factor));
    _mm_storeu_si128((__m128i *)to, _mm512_cvtsepi32_epi8(codes));
    return _mm512_reduce_add_epi32(codes);
}

static void round_row(const Rounded *to, int row, const bf16 *from, int depth) {
    const int64_t first_chunk = (int64_t)row * (depth / 32);
    int8_t *codes = to->codes + first_chunk * 32;
    float *scales = to->scales + first_chunk, *totals = to->totals + first_chunk;
    float *halves = to->halves + 2 * first_chunk;
    for (int i = 0; i < depth / 32; i++, codes += 32) {
        const __m512 first = load_bf16(from + 32 * i), second = load_bf16(from + 32 * i + TILE);
        const float most =
            _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second)));
        const __m512 factor = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
        scales[i] = most / 127.0f;
        halves[2 * i] = (float)round_half(first, factor, codes) * scales[i];
        halves[2 * i + 1] = (float)round_half(second, factor, codes + TILE) * scales[i];
        totals[i] = halves[2 * i] + halves[2 * i + 1];
    }
}

/* What is read of one row for 32 inputs. */
typedef struct {
    const int8_t *codes;
    float scale, total;
    const float *halves;
} RowChunk;

INLINE RowChunk row_chunk(const Rounded *rows, int row, int depth, int chunk) {
    const int64_t at = (int64_t)row * (depth / 32) + chunk;
    return (RowChunk){rows->codes + at * 32, rows->scales[at], rows->totals[at],
                      rows->halves + 2 * at};
}

/* Groups of 16 inputs: such as codes of these bits have in files. */
INLINE int is_fine(const int bits) {
    return bits == 2 || bits == 3 || bits == 6;
}

/* Whether rows in 8 bits can be multiplied with them. */
static inline int can_round(const Matrix *matrix) {
    return matrix->is_whole && (matrix->group > TILE || is_fine(matrix->bits));
}

/* A group's codes are worth scale * code + offset. */
INLINE __m512 offset_of(const Matrix *matrix, const PanelCodes *panel, int group, int half,
                        __m512 scale) {
    const __m512 zero = _mm512_set1_ps((float)matrix->zero);
    if (!panel->minimums) return _mm512_fnmadd_ps(zero, scale, _mm512_setzero_ps());
    return _mm512_fnmadd_ps(zero, scale, load_floats(matrix, panel->minimums, group, half));
}

/* The i-th vector of codes, or above -zero what a table says of them. */
INLINE __m512i worths_at(const int bits, const Matrix *matrix, Planes planes, const int i) {
    const __m512i codes = codes_at(bits, planes, i);
    if (bits != 4 || matrix->worth != TABLE) return codes;
    const __m128i table = _mm_loadu_si128((const __m128i *)matrix->worths);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), codes);
}

/* Adds some of a chunk's inputs, `vectors` of 4 from `first` on, to the rows' sums of 16 columns.
 */
INLINE void add_group(const int bits, const int count, const int first, const int vectors,
                      const Matrix *matrix, const PanelCodes *panel, Planes planes, int group,
                      int half, const RowChunk *rows, __m512 *sums) {
    __m512i dots[4];
#pragma GCC unroll 4
    for (int row = 0; row < count; row++) dots[row] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = first; i < first + vectors; i++) {
        const __m512i codes = worths_at(bits, matrix, planes, i);
#pragma GCC unroll 4
        for (int row = 0; row < count; row++) {
            int32_t four;
            memcpy(&four, rows[row].codes + 4 * i, 4);
            dots[row] = _mm512_dpbusd_epi32(dots[row], codes, _mm512_set1_epi32(four));
        }
    }
    const __m512 scale = load_floats(matrix, panel->scales, group, half);
    const __m512 offset = offset_of(matrix, panel, group, half, scale);
#pragma GCC unroll 4
    for (int row = 0; row < count; row++) {
        const float total = vectors == 8 ? rows[row].total : rows[row].halves[first / 4];
        sums[row] = _mm512_fmadd_ps(offset, _mm512_set1_ps(total), sums[row]);
        sums[row] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[row]),
                            _mm512_mul_ps(scale, _mm512_set1_ps(rows[row].scale)), sums[row]);
    }
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
