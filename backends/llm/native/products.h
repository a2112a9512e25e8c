/* Matrix products: a piece is one panel of 32 columns, against some rows. */
#pragma once
#include "blocks.h"
#include "expanding.h"
#include "finishes.h"
#include "walk.h"

/* left [rows, depth] x weight, and what becomes of it. */
typedef struct {
    const bf16 *left;
    int rows, depth;
    const Matrix *weight;
    Finish finish;
    const Rounded *rounded; /* the rows in 8 bits, or null */
    int at_once;            /* rows of a piece */
} Product;

static inline int is_packed(const Matrix *matrix) {
    return matrix->bits != 16;
}

/* Rows of a piece. A panel that is expanded is so for as many as can be, unless threads would have
 * nothing to do. */
static inline int rows_at_once(const Model *model, const Matrix *weight, int panels) {
    return is_packed(weight) && panels >= 2 * model->threads ? MOST_ROWS : PIECE_ROWS;
}

/* What its columns are cut into. */
static inline int panels_in(const Product *product) {
    return (int)(product->finish.width / (product->finish.kind == GATE ? TILE : PANEL));
}

static inline int blocks_of(const Product *product) {
    return (product->rows + product->at_once - 1) / product->at_once;
}

/* Rows of a block of a product: from the `first`th on. */
typedef struct {
    int first, count;
} Rows;

static inline Rows rows_of(const Product *product, int block) {
    const int first = block * product->at_once, left = product->rows - first;
    return (Rows){first, left < product->at_once ? left : product->at_once};
}

static void sum_numbers(const Model *model, const Product *product, const bf16 *panel, Rows rows,
                        float *sums) {
    for (int i = 0; i < rows.count; i += ROWS, sums += ROWS * PANEL) {
        const int row = rows.first + i;
        const Left left = {.rows = product->left + (int64_t)row * product->depth,
                           .count = rows.count - i < ROWS ? rows.count - i : ROWS,
                           .width = product->depth,
                           .depth = product->depth};
        multiply_block(model, &left, panel, row == 0, 0, sums);
    }
}

/* How deep a slice of a panel is that is expanded at a time, while the one before is multiplied.
 * Both stay in the nearest cache, if few rows read them. */
static inline int slice_of(Rows rows) {
    return rows.count > FEW_BLOCKS * ROWS ? MOST_SLICE : SLICE;
}

/* `depth` inputs from `from` on, which are in `tiles`; meanwhile what is coming is expanded. */
static void multiply_slice(const Model *model, const Product *product, const bf16 *tiles, int from,
                           int depth, Rows rows, Expanding *coming, float *sums) {
    const int blocks = (rows.count + ROWS - 1) / ROWS;
    Meanwhile meanwhile = {.do_next = expand_next,
                           .of = coming,
                           .bits = coming->end - coming->next,
                           .steps = blocks * (depth / 32)};
    for (int i = 0; i < rows.count; i += ROWS) {
        const Left left = {.rows =
                               product->left + (int64_t)(rows.first + i) * product->depth + from,
                           .count = rows.count - i < ROWS ? rows.count - i : ROWS,
                           .width = product->depth,
                           .depth = depth,
                           .is_begun = from > 0};
        multiply_block(model, &left, tiles, 0, &meanwhile, sums + i * PANEL);
    }
}

static void sum_expanded(const Model *model, const Product *product, const Matrix *matrix,
                         const PanelCodes *panel, Rows rows, float *sums) {
    bf16 tiles[2][MOST_SLICE * PANEL] __attribute__((aligned(64)));
    const int depth = product->depth, slice = slice_of(rows);
    Expanding coming = {.matrix = matrix, .panel = panel, .to = tiles[0]};
    coming.end = tiles_before(slice, depth);
    expand_rest(&coming);
    for (int from = 0, turn = 0; from < depth; from += slice, turn ^= 1) {
        const int to = from + slice < depth ? from + slice : depth;
        coming.end = tiles_before(to + slice, depth), coming.to = tiles[!turn];
        multiply_slice(model, product, tiles[turn], from, to - from, rows, &coming, sums);
        expand_rest(&coming);
    }
}

static void raise(const Model *model, const Product *product, int panel, Rows rows, float *sums) {
    const Finish *finish = &product->finish;
    for (int i = 0; i < rows.count; i += ROWS, sums += ROWS * PANEL) {
        const int row = rows.first + i, some = rows.count - i < ROWS ? rows.count - i : ROWS;
        add_raised(model, finish->added, finish->lowered + row * finish->added->depth, some, panel,
                   finish->kind == GATE ? finish->width : 0, sums);
    }
}

/* [the block's rows, PANEL]. */
static void sum_block(const Model *model, const Product *product, int panel, Rows rows,
                      float *sums) {
    const Matrix *matrix = product->weight;
    int own = panel; /* of the matrix that has it */
    for (; own >= matrix->panels; matrix++) own -= matrix->panels;
    if (is_packed(matrix)) {
        const PanelCodes codes = panel_codes(matrix, product->depth, own);
        if (product->rounded && can_round(matrix))
            multiply_rounded(matrix, &codes, product->rounded, rows.first, rows.count,
                             product->depth, sums);
        else
            sum_expanded(model, product, matrix, &codes, rows, sums);
    } else {
        sum_numbers(model, product,
                    (const bf16 *)matrix->low + (int64_t)own * PANEL * product->depth, rows, sums);
    }
    if (product->finish.added) raise(model, product, panel, rows, sums);
}

/* One panel of some rows. What becomes of a few rows' sums is computed while the next rows are
 * multiplied: so a piece of many is this thread's for good once its first rows are done. */
static void multiply_piece(const Walk *w, const Product *product, int panel, int block,
                           Work *work) {
    float sums[MOST_ROWS * PANEL] __attribute__((aligned(64)));
    const Rows rows = rows_of(product, block);
    const int at_once = is_packed(product->weight) ? MOST_ROWS : ROWS;
    for (int i = 0; i < rows.count; i += at_once) {
        const int left = rows.count - i;
        const Rows some = {rows.first + i, left < at_once ? left : at_once};
        sum_block(w->model, product, panel, some, sums);
        if (i == 0 && !may_keep(work)) return;
        finish_block(&product->finish, sums, some.first, some.count, panel);
    }
    kept(work);
}

/* The rows with their inputs in the weight's order. */
static const bf16 *arranged(Walk *w, const Product *product) {
    const int32_t *order = product->weight->order;
    bf16 *to = w->buffers.arranged;
    if (!order) return product->left;
    for (Work work = begin_short(w, product->rows); take(&work); kept(&work)) {
        const int64_t row = (int64_t)work.piece * product->depth;
        for (int i = 0; i < product->depth; i++) to[row + i] = product->left[row + order[i]];
    }
    return to;
}

/* The rows in 8 bits, each thread's own if they are few: to meet would take longer. */
static Rounded rounded_rows(Walk *w, const Product *product) {
    if (product->rows <= FEW_ROWS) {
        const Rounded own = rounded_in(w->buffers.own_rounded, FEW_ROWS, product->depth);
        for (int row = 0; row < product->rows; row++)
            round_row(&own, row, product->left + (int64_t)row * product->depth, product->depth);
        return own;
    }
    const Rounded all = rounded_in(w->buffers.rounded, product->rows, product->depth);
    for (Work work = begin_short(w, product->rows); take(&work); kept(&work))
        round_row(&all, work.piece, product->left + (int64_t)work.piece * product->depth,
                  product->depth);
    return all;
}

/* Each panel against many rows while it is near. */
static void multiply(Walk *w, Product product) {
    const int panels = panels_in(&product);
    Rounded rounded;
    if (!panels) return;
    product.left = arranged(w, &product);
    if (is_packed(product.weight) && may_round(w->model, product.rows)) {
        rounded = rounded_rows(w, &product);
        product.rounded = &rounded;
    }
    product.at_once = rows_at_once(w->model, product.weight, panels);
    const int blocks = blocks_of(&product);
    Work work = begin_repeatable(w, panels * blocks);
    while (take(&work))
        multiply_piece(w, &product, work.piece / blocks, work.piece % blocks, &work);
}
