/* Rows times packed numbers: [rows, depth] x [depth, 32 columns] at a time. */
#pragma once
#include <string.h>

#include "vectors.h"

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) TileConfig;

/* Tiles 0 to 3 sum, 4 and 5 hold rows of the left matrix, 6 and 7 of the packed right one. */
static void configure_tiles(int rows) {
    TileConfig config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
        config.bytes[tile] = 64;
        config.rows[tile] = (uint8_t)(tile < 6 ? rows : TILE);
    }
    /* GCC takes it to read the first 8 bytes only, and may leave out writing the others. */
    asm volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

/* Weights come from memory once, in order; the processor's own prefetcher stops at each page. */
static inline void prefetch_panel(const char *right) {
    for (int line = 0; line < 2 * TILE_BYTES; line += 64)
        _mm_prefetch(right + 8 * TILE_BYTES + line, _MM_HINT_T0);
}

/* Some rows, and how much of them is multiplied with a panel. */
typedef struct {
    const bf16 *rows;
    int count, width; /* `width`: from one row to the next */
    int depth;
    int is_begun; /* sums go on from what they are */
} Left;

/* Other work, a bit of which is done at each step of a product: the processor does both at once. */
typedef struct {
    void (*do_next)(void *of);
    void *of;
    int bits, steps; /* so many bits in so many steps */
    int due;
} Meanwhile;

static inline void go_on(Meanwhile *work) {
    for (work->due += work->bits; work->due >= work->steps; work->due -= work->steps)
        work->do_next(work->of);
}

static inline void begin_tiles(const Left *left, const float *sums) {
    if (!left->is_begun) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        return;
    }
    _tile_loadd(0, sums, PANEL * 4);
    _tile_loadd(1, sums + TILE, PANEL * 4);
    if (left->count <= TILE) return;
    _tile_loadd(2, sums + TILE * PANEL, PANEL * 4);
    _tile_loadd(3, sums + TILE * PANEL + TILE, PANEL * 4);
}

/* `is_first`: the panel has not been read before; `meanwhile`: or null. */
INLINE void multiply_tiles(const Left *left, const bf16 *panel, const int is_first,
                           Meanwhile *meanwhile, float *sums) {
    const int stride = left->width * 2, depth = left->depth;
    const char *right = (const char *)panel;
    const bf16 *rows = left->rows;
    begin_tiles(left, sums);
    if (left->count <= TILE) {
        for (int k = 0; k < depth; k += 32, right += 2 * TILE_BYTES) {
            if (is_first) prefetch_panel(right);
            if (meanwhile) go_on(meanwhile);
            _tile_loadd(4, rows + k, stride);
            _tile_loadd(6, right, 64);
            _tile_loadd(7, right + TILE_BYTES, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    } else {
        const bf16 *below = rows + TILE * left->width;
        for (int k = 0; k < depth; k += 32, right += 2 * TILE_BYTES) {
            if (is_first) prefetch_panel(right);
            if (meanwhile) go_on(meanwhile);
            _tile_loadd(4, rows + k, stride);
            _tile_loadd(6, right, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, right + TILE_BYTES, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, below + k, stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(2, sums + TILE * PANEL, PANEL * 4);
        _tile_stored(3, sums + TILE * PANEL + TILE, PANEL * 4);
    }
    _tile_stored(0, sums, PANEL * 4);
    _tile_stored(1, sums + TILE, PANEL * 4);
}

INLINE void multiply_rows(const int rows, const Left *left, const bf16 *from, const bf16 *panel,
                          float *sums) {
    __m512 low[8], high[8];
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++) {
        const float *begun = sums + row * PANEL;
        low[row] = left->is_begun ? _mm512_loadu_ps(begun) : _mm512_setzero_ps();
        high[row] = left->is_begun ? _mm512_loadu_ps(begun + TILE) : _mm512_setzero_ps();
    }
    const bf16 *right = panel;
    for (int k = 0; k < left->depth; k += 32, right += 2 * TILE * 32) {
        for (int pair = 0; pair < 16; pair++) {
            _mm_prefetch((const char *)(right + pair * 32) + 4096, _MM_HINT_T0);
            _mm_prefetch((const char *)(right + pair * 32) + 4096 + TILE_BYTES, _MM_HINT_T0);
            __m512bh first = (__m512bh)_mm512_loadu_si512(right + pair * 32);
            __m512bh second = (__m512bh)_mm512_loadu_si512(right + TILE * 32 + pair * 32);
#pragma GCC unroll 16
            for (int row = 0; row < rows; row++) {
                int32_t two;
                memcpy(&two, from + row * left->width + k + 2 * pair, 4);
                __m512bh spread = (__m512bh)_mm512_set1_epi32(two);
                low[row] = _mm512_dpbf16_ps(low[row], spread, first);
                high[row] = _mm512_dpbf16_ps(high[row], spread, second);
            }
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++) {
        _mm512_storeu_ps(sums + row * PANEL, low[row]);
        _mm512_storeu_ps(sums + row * PANEL + TILE, high[row]);
    }
}

static void multiply_vectors(const Left *left, const bf16 *panel, float *sums) {
    const bf16 *from = left->rows;
    for (int row = 0; row < left->count; row += 8, from += 8 * left->width, sums += 8 * PANEL) {
        switch (left->count - row) {
        case 1: multiply_rows(1, left, from, panel, sums); break;
        case 2: multiply_rows(2, left, from, panel, sums); break;
        case 3: multiply_rows(3, left, from, panel, sums); break;
        case 4: multiply_rows(4, left, from, panel, sums); break;
        case 5: multiply_rows(5, left, from, panel, sums); break;
        case 6: multiply_rows(6, left, from, panel, sums); break;
        case 7: multiply_rows(7, left, from, panel, sums); break;
        default: multiply_rows(8, left, from, panel, sums); break;
        }
    }
}

/* [rows, PANEL]: up to ROWS rows times a panel. `is_first` and `meanwhile` as above: vectors have
 * no time for the latter. */
static void multiply_block(const Model *model, const Left *left, const bf16 *panel, int is_first,
                           Meanwhile *meanwhile, float *sums) {
    if (!model->has_amx)
        multiply_vectors(left, panel, sums);
    else if (meanwhile)
        multiply_tiles(left, panel, 0, meanwhile, sums);
    else if (is_first)
        multiply_tiles(left, panel, 1, 0, sums);
    else
        multiply_tiles(left, panel, 0, 0, sums);
}
