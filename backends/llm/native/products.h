/* Matrix products with packed weights: [rows, depth] x [depth, 32 columns] at a time. */
#pragma once
#include <string.h>

#include "activations.h"
#include "adapters.h"
#include "walk.h"

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

static inline __attribute__((always_inline)) void multiply_tiles(const bf16 *left, int rows,
                                                                 int depth, const bf16 *panel,
                                                                 const int is_first, float *sums) {
    const int stride = depth * 2;
    const char *right = (const char *)panel;
    _tile_zero(0);
    _tile_zero(1);
    if (rows <= TILE) {
        for (int k = 0; k < depth; k += 32, right += 2 * TILE_BYTES) {
            if (is_first) prefetch_panel(right);
            _tile_loadd(4, left + k, stride);
            _tile_loadd(6, right, 64);
            _tile_loadd(7, right + TILE_BYTES, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    } else {
        const bf16 *below = left + TILE * depth;
        _tile_zero(2);
        _tile_zero(3);
        for (int k = 0; k < depth; k += 32, right += 2 * TILE_BYTES) {
            if (is_first) prefetch_panel(right);
            _tile_loadd(4, left + k, stride);
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

static inline __attribute__((always_inline)) void
multiply_rows(const int rows, const bf16 *left, int depth, const bf16 *panel, float *sums) {
    __m512 low[8], high[8];
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++) low[row] = high[row] = _mm512_setzero_ps();
    const bf16 *right = panel;
    for (int k = 0; k < depth; k += 32, right += 2 * TILE * 32) {
        for (int pair = 0; pair < 16; pair++) {
            _mm_prefetch((const char *)(right + pair * 32) + 4096, _MM_HINT_T0);
            _mm_prefetch((const char *)(right + pair * 32) + 4096 + TILE_BYTES, _MM_HINT_T0);
            __m512bh first = (__m512bh)_mm512_loadu_si512(right + pair * 32);
            __m512bh second = (__m512bh)_mm512_loadu_si512(right + TILE * 32 + pair * 32);
#pragma GCC unroll 16
            for (int row = 0; row < rows; row++) {
                int32_t two;
                memcpy(&two, left + row * depth + k + 2 * pair, 4);
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

static void multiply_vectors(const bf16 *left, int rows, int depth, const bf16 *panel,
                             float *sums) {
    for (int row = 0; row < rows; row += 8, left += 8 * depth, sums += 8 * PANEL) {
        switch (rows - row) {
        case 1: multiply_rows(1, left, depth, panel, sums); break;
        case 2: multiply_rows(2, left, depth, panel, sums); break;
        case 3: multiply_rows(3, left, depth, panel, sums); break;
        case 4: multiply_rows(4, left, depth, panel, sums); break;
        case 5: multiply_rows(5, left, depth, panel, sums); break;
        case 6: multiply_rows(6, left, depth, panel, sums); break;
        case 7: multiply_rows(7, left, depth, panel, sums); break;
        default: multiply_rows(8, left, depth, panel, sums); break;
        }
    }
}

/* What becomes of a block of sums: `rows` of them from `row` on, columns of panel `panel`. */
typedef struct {
    enum { STORE, ADD, ACTIVATE, GATE, LOWER } kind;
    int32_t activation;    /* ACTIVATE, GATE */
    float *floats;         /* STORE, ADD: [rows, width] */
    bf16 *halves;          /* ACTIVATE, GATE, LOWER: [rows, width] */
    const bf16 *bias;      /* of each column, or null */
    float multiplier, cap; /* STORE, ADD: 0 is none */
    int64_t width;
    const int32_t *places; /* ADD: where each row is added, or null: in order */
    const float *shares;   /* of each row, by which it is multiplied; with places only */
    const Added *added;    /* by adapters, or null; of `lowered` */
    const bf16 *lowered;
    const int32_t *owners, *slots; /* LOWER: of columns and rows */
} Finish;

/* Of what a row was lowered to, its own adapter's. */
static void keep_own(const Finish *finish, __m512 first, __m512 second, int row, int panel) {
    const __m512i slot = _mm512_set1_epi32(finish->slots[row]);
    const int32_t *owners = finish->owners + panel * PANEL;
    const __mmask16 is_first = _mm512_cmpeq_epi32_mask(slot, _mm512_loadu_si512(owners));
    const __mmask16 is_second = _mm512_cmpeq_epi32_mask(slot, _mm512_loadu_si512(owners + TILE));
    bf16 *to = finish->halves + row * finish->width + (int64_t)panel * PANEL;
    store_bf16(to, _mm512_maskz_mov_ps(is_first, first));
    store_bf16(to + TILE, _mm512_maskz_mov_ps(is_second, second));
}

static void keep_sums(const Finish *finish, __m512 first, __m512 second, int row, int panel) {
    const int place = finish->places ? finish->places[row] : row;
    float *to = finish->floats + place * finish->width + (int64_t)panel * PANEL;
    float multiplier = finish->multiplier ? finish->multiplier : 1.0f;
    if (finish->shares) multiplier *= finish->shares[row];
    if (multiplier != 1.0f) {
        first = _mm512_mul_ps(first, _mm512_set1_ps(multiplier));
        second = _mm512_mul_ps(second, _mm512_set1_ps(multiplier));
    }
    if (finish->cap) {
        first = capped(first, finish->cap);
        second = capped(second, finish->cap);
    }
    if (finish->kind == ADD) {
        first = _mm512_add_ps(first, _mm512_loadu_ps(to));
        second = _mm512_add_ps(second, _mm512_loadu_ps(to + TILE));
    }
    _mm512_storeu_ps(to, first);
    _mm512_storeu_ps(to + TILE, second);
}

static void finish_block(const Finish *finish, const float *sums, int row, int rows, int panel) {
    const int width = finish->kind == GATE ? TILE : PANEL;
    for (int end = row + rows; row < end; row++, sums += PANEL) {
        __m512 first = _mm512_loadu_ps(sums), second = _mm512_loadu_ps(sums + TILE);
        if (finish->bias) {
            first = _mm512_add_ps(first, load_bf16(finish->bias + panel * PANEL));
            second = _mm512_add_ps(second, load_bf16(finish->bias + panel * PANEL + TILE));
        }
        if (finish->kind == LOWER) {
            keep_own(finish, first, second, row, panel);
            continue;
        }
        if (finish->kind == STORE || finish->kind == ADD) {
            keep_sums(finish, first, second, row, panel);
            continue;
        }
        bf16 *to = finish->halves + row * finish->width + (int64_t)panel * width;
        first = activate(finish->activation, first);
        if (finish->kind == GATE) { /* the other half is what it lets through */
            store_bf16(to, _mm512_mul_ps(first, second));
        } else {
            store_bf16(to, first);
            store_bf16(to + TILE, activate(finish->activation, second));
        }
    }
}

/* left [rows, depth] x weight, and what becomes of it. */
typedef struct {
    const bf16 *left;
    int rows, depth;
    const bf16 *weight;
    Finish finish;
} Product;

static inline int blocks_of(int rows) {
    return (rows + PIECE_ROWS - 1) / PIECE_ROWS;
}

static inline int rows_in(const Product *product, int block) {
    const int left = product->rows - block * PIECE_ROWS;
    return left < PIECE_ROWS ? left : PIECE_ROWS;
}

/* [the block's rows, PANEL]. */
static void sum_block(const Model *model, const Product *product, int panel, int block,
                      float *sums) {
    const int depth = product->depth;
    const bf16 *right = product->weight + (int64_t)panel * PANEL * depth;
    const Finish *finish = &product->finish;
    const int end = block * PIECE_ROWS + rows_in(product, block);
    for (int row = block * PIECE_ROWS; row < end; row += ROWS, sums += ROWS * PANEL) {
        const int some = end - row < ROWS ? end - row : ROWS;
        const bf16 *left = product->left + (int64_t)row * depth;
        if (model->has_amx && row == 0)
            multiply_tiles(left, some, depth, right, 1, sums);
        else if (model->has_amx)
            multiply_tiles(left, some, depth, right, 0, sums);
        else
            multiply_vectors(left, some, depth, right, sums);
        if (finish->added)
            add_raised(model, finish->added, finish->lowered + row * finish->added->depth, some,
                       panel, finish->kind == GATE ? finish->width : 0, sums);
    }
}

/* One panel of some rows. */
static void multiply_block(const Walk *w, const Product *product, int panel, int block,
                           Work *work) {
    float sums[PIECE_ROWS * PANEL] __attribute__((aligned(64)));
    sum_block(w->model, product, panel, block, sums);
    if (!may_keep(work)) return;
    finish_block(&product->finish, sums, block * PIECE_ROWS, rows_in(product, block), panel);
    kept(work);
}

/* Each panel against all rows while it is near. */
static void multiply(Walk *w, const Product *product, int panels) {
    const int blocks = blocks_of(product->rows);
    Work work = begin_repeatable(w, panels * blocks);
    while (take(&work)) multiply_block(w, product, work.piece / blocks, work.piece % blocks, &work);
}
