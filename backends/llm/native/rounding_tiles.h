/* Rows in 8 bits times weights of codes by tiles of whole numbers: for more rows than vectors have
 * time for while weights are read, and fewer than it takes to make weights numbers.
 *
 * A tile has 64 inputs, of which only 32 share their scales. So the rows have zeros behind each 32:
 * what the weights' tile has there does not count, and no other shape of tiles is needed. */
#pragma once
#include "rounding.h"

/* Whether all of a chunk's inputs share their scale. */
static inline int can_tile(const Matrix *matrix) {
    return can_round(matrix) && !is_fine(matrix->bits);
}

/* Half a panel of a chunk: its weights' tile, and what its dots are to be scaled by. */
typedef struct {
    char *tile;
    __m512 scale, offset;
} Unit;

INLINE void lay_unit(const int bits, const Matrix *matrix, const PanelCodes *panel, int chunk,
                     int half, Unit *unit) {
    const Planes planes = planes_at(bits, panel, chunk, half);
    const int group = chunk * 32 / matrix->group;
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        _mm512_store_si512(unit->tile + 64 * i, worths_at(bits, matrix, planes, i));
    unit->scale = load_floats(matrix, panel->scales, group, half);
    unit->offset = offset_of(matrix, panel, group, half, unit->scale);
}

/* Dots of `place`, whose tile that is, too. */
#define DOT(place)                                                                                 \
    _tile_zero(place);                                                                             \
    _tile_loadd(4, rows->codes + (first + place) * WITH_ZEROS, chunks * WITH_ZEROS);               \
    _tile_loadd(6, units[place].tile, 64);                                                         \
    _tile_dpbsud(place, 4, 6);                                                                     \
    _tile_stored(place, dots[place], 64);

/* Adds `count` chunks from `chunk` on, of half a panel, to the sums of `some` rows from `row` on.
 */
INLINE void add_units(const Unit *units, const int count, const Rounded *rows, int row, int some,
                      int depth, int chunk, float *sums) {
    int32_t dots[2][TILE * TILE] __attribute__((aligned(64)));
    const int64_t chunks = depth / 32;
    int64_t first = row * chunks + chunk;
    DOT(0)
    if (count > 1) {
        DOT(1)
    }
    for (int i = 0; i < some; i++, first += chunks, sums += PANEL) {
        __m512 sum = _mm512_loadu_ps(sums);
#pragma GCC unroll 2
        for (int unit = 0; unit < count; unit++) {
            const __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots[unit] + i * TILE));
            const __m512 scale =
                _mm512_mul_ps(units[unit].scale, _mm512_set1_ps(rows->scales[first + unit]));
            sum = _mm512_fmadd_ps(units[unit].offset, _mm512_set1_ps(rows->totals[first + unit]),
                                  sum);
            sum = _mm512_fmadd_ps(dot, scale, sum);
        }
        _mm512_storeu_ps(sums, sum);
    }
}

#undef DOT

INLINE void add_chunks(const int bits, const int chunks, const Matrix *matrix,
                       const PanelCodes *panel, const Rounded *rows, int row, int count, int depth,
                       int from, char *room, float *to) {
    Unit units[2] = {{.tile = room}, {.tile = room + TILE_BYTES}};
    for (int half = 0; half < 2; half++, to += TILE) {
#pragma GCC unroll 2
        for (int chunk = 0; chunk < chunks; chunk++)
            lay_unit(bits, matrix, panel, from + chunk, half, units + chunk);
        for (int block = 0; block < count; block += TILE)
            add_units(units, chunks, rows, row + block, count - block < TILE ? count - block : TILE,
                      depth, from, to + block * PANEL);
    }
}

INLINE void sum_tiled(const int bits, const Matrix *matrix, const PanelCodes *panel,
                      const Rounded *rows, int row, int count, int depth, float *to) {
    char room[2 * TILE_BYTES] __attribute__((aligned(64)));
    const int64_t step = plane_bytes(low_bits(bits));
    memset(room, 0, sizeof room);
    memset(to, 0, count * PANEL * sizeof(float));
    for (int chunk = 0; chunk < depth / 32; chunk += 2) {
        for (int line = 0; line < 2 * step; line += 64)
            _mm_prefetch(panel->low + (chunk + 6) * step + line, _MM_HINT_T0);
        if (chunk + 1 < depth / 32)
            add_chunks(bits, 2, matrix, panel, rows, row, count, depth, chunk, room, to);
        else
            add_chunks(bits, 1, matrix, panel, rows, row, count, depth, chunk, room, to);
    }
}

/* [count, PANEL] of the rows from `row` on times a panel. Rows are read in whole tiles. */
static void multiply_tiled(const Matrix *matrix, const PanelCodes *panel, const Rounded *rows,
                           int row, int count, int depth, float *to) {
    FOR_BITS(matrix->bits, sum_tiled, matrix, panel, rows, row, count, depth, to)
}
