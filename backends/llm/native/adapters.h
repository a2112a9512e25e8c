/* What a step's adapters add to a product. Rows are lowered to the ranks of all adapters, of which
 * each row keeps those of its own; they are raised to the product's columns while its sums are
 * near. adapters/stack.py says what that gives. */
#pragma once
#include "model.h"
#include "vectors.h"

/* Adds left [rows, depth] x right to 16 columns of sums [rows, PANEL]. */
static inline void raise_tiles(const bf16 *left, int64_t stride, int depth, const bf16 *right,
                               float *sums) {
    _tile_loadd(0, sums, PANEL * 4);
    for (int k = 0; k < depth; k += 32, right += TILE * 32) {
        _tile_loadd(4, left + k, stride * 2);
        _tile_loadd(6, right, 64);
        _tile_dpbf16ps(0, 4, 6);
    }
    _tile_stored(0, sums, PANEL * 4);
}

static inline void raise_vectors(const bf16 *left, int64_t stride, int rows, int depth,
                                 const bf16 *right, float *sums) {
    for (int row = 0; row < rows; row++, left += stride, sums += PANEL) {
        __m512 sum = _mm512_loadu_ps(sums);
        for (int pair = 0; pair < depth / 2; pair++) {
            int32_t two;
            memcpy(&two, left + 2 * pair, 4);
            __m512bh some = (__m512bh)_mm512_loadu_si512(right + pair * 32);
            sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(two), some);
        }
        _mm512_storeu_ps(sums, sum);
    }
}

/* `inner`: of a product whose panels have 16 columns of a gate and 16 of what it lets through; else
 * 0. */
static void add_raised(const Model *model, const Added *added, const bf16 *lowered, int rows,
                       int panel, int64_t inner, float *sums) {
    for (int half = 0; half < 2; half++, sums += TILE) {
        const int tile = inner ? half * (int)(inner / TILE) + panel : 2 * panel + half;
        for (int part = 0; part < added->parts; part++) {
            if (tile < added->first_tiles[part] || tile >= added->last_tiles[part]) continue;
            const int first = added->first_columns[part];
            const int depth = added->first_columns[part + 1] - first;
            const bf16 *right =
                added->ups[part] + (int64_t)(tile - added->first_tiles[part]) * TILE * depth;
            const bf16 *left = lowered + first;
            if (!model->has_amx) {
                raise_vectors(left, added->depth, rows, depth, right, sums);
                continue;
            }
            raise_tiles(left, added->depth, depth, right, sums);
            if (rows > TILE)
                raise_tiles(left + TILE * added->depth, added->depth, depth, right,
                            sums + TILE * PANEL);
        }
    }
}
