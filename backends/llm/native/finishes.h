/* What becomes of a product's sums. */
#pragma once
#include <string.h>

#include "activations.h"
#include "adapters.h"

/* What becomes of a block of sums: `rows` of them from `row` on, columns of panel `panel`. */
typedef struct {
    enum { STORE, ADD, ROUND, ACTIVATE, GATE, LOWER } kind;
    int32_t activation;    /* ACTIVATE, GATE */
    float *floats;         /* STORE, ADD: [rows, width] */
    bf16 *halves;          /* ROUND, ACTIVATE, GATE, LOWER: [rows, width] */
    const bf16 *bias;      /* of each column, or null */
    float multiplier, cap; /* STORE, ADD: 0 is none */
    int64_t width;
    const int32_t *places; /* ADD, LOWER: the token of each row, or null: in order */
    const float *shares;   /* of each row, by which it is multiplied; with places only */
    const Added *added;    /* by adapters, or null; of `lowered` */
    const bf16 *lowered;
    const int32_t *owners, *slots; /* LOWER: of columns, and of the rows' tokens */
} Finish;

/* Of what a row was lowered to, its own adapter's. */
static void keep_own(const Finish *finish, __m512 first, __m512 second, int row, int panel) {
    const int token = finish->places ? finish->places[row] : row;
    const __m512i slot = _mm512_set1_epi32(finish->slots[token]);
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
        if (finish->kind != ROUND) first = activate(finish->activation, first);
        if (finish->kind == ACTIVATE) second = activate(finish->activation, second);
        if (finish->kind == GATE) { /* the other half is what it lets through */
            store_bf16(to, _mm512_mul_ps(first, second));
        } else {
            store_bf16(to, first);
            store_bf16(to + TILE, second);
        }
    }
}
