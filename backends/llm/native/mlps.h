/* MLPs, in two halves between which threads meet: into the inner size, and down from it. */
#pragma once
#include "experts.h"

/* What a product's rows are lowered to. */
static void lower(Walk *w, const Added *added, const bf16 *rows, int depth, bf16 *to) {
    const Matrix weight = {.panels = added->depth / PANEL, .bits = 16, .low = added->down};
    const Product product = {
        .left = rows,
        .rows = w->step->tokens,
        .depth = depth,
        .weight = &weight,
        .finish = {.kind = LOWER,
                   .halves = to,
                   .width = added->depth,
                   .owners = added->owners,
                   .slots = w->step->adapter_slots},
    };
    if (added->parts) multiply(w, product, weight.panels);
}

/* Has a product add what its rows were lowered to. */
static void add_from(const Added *added, const bf16 *lowered, Finish *finish) {
    finish->added = added->parts ? added : 0;
    finish->lowered = lowered;
}

/* Rows that one MLP computes. */
typedef struct {
    const Mlp *mlp;
    int rows;
    const bf16 *states; /* [rows, hidden] */
    bf16 *activated;    /* [rows, inner] */
    const int32_t *places;
    const float *shares; /* as in Finish */
} Part;

/* The `number`th of a layer's experts, or its only MLP. */
static Part part_of(const Walk *w, const Layer *layer, const bf16 *states, int number) {
    const Router *router = &layer->router;
    const Choice *choice = &w->buffers.choice;
    const Mlp *mlp = layer->mlps + number;
    Part part = {.mlp = mlp, .rows = w->step->tokens, .states = states};
    const int64_t routed = (int64_t)w->step->tokens * router->active * layer->mlps[0].inner;
    if (number < router->count) {
        const int64_t first = choice->starts[number];
        part.rows = (int)(choice->starts[number + 1] - first);
        part.states = choice->gathered + first * w->model->hidden;
        part.activated = w->buffers.activated + first * mlp->inner;
        part.places = choice->places + first;
        part.shares = choice->shares + first;
    } else {
        part.activated = w->buffers.activated + routed;
        if (router->has_shared) part.shares = choice->of_shared;
    }
    return part;
}

static inline int parts_of(const Layer *layer) {
    return layer->router.count ? layer->router.count + layer->router.has_shared : 1;
}

static Product into_mlp(const Walk *w, const Part *part) {
    const Mlp *mlp = part->mlp;
    Product product = {
        .left = part->states,
        .rows = part->rows,
        .depth = w->model->hidden,
        .weight = mlp->into,
        .finish = {.kind = mlp->is_gated ? GATE : ACTIVATE,
                   .activation = mlp->activation,
                   .halves = part->activated,
                   .bias = mlp->into_bias,
                   .width = mlp->inner},
    };
    if (w->adapters) add_from(&w->adapters->into, w->step->lowered_too, &product.finish);
    return product;
}

static inline int panels_into(const Mlp *mlp) {
    return mlp->inner / (mlp->is_gated ? TILE : PANEL);
}

/* One of the experts' products, and the first of its pieces. */
typedef struct {
    int number, first, pieces;
    Product product;
} Entered;

static Entered enter_expert(const Walk *w, const Layer *layer, const bf16 *states, int number,
                            int first) {
    const Part part = part_of(w, layer, states, number);
    Entered entered = {.number = number, .first = first, .product = into_mlp(w, &part)};
    const int panels = panels_into(part.mlp);
    entered.product.at_once = rows_at_once(w->model, part.mlp->into, panels);
    entered.pieces = panels * blocks_of(&entered.product);
    return entered;
}

/* All experts' pieces are of one phase. */
static void enter_experts(Walk *w, const Layer *layer, const bf16 *states) {
    int pieces = 0;
    for (int number = 0; number < parts_of(layer); number++)
        pieces += enter_expert(w, layer, states, number, 0).pieces;
    Entered at = enter_expert(w, layer, states, 0, 0);
    Work work = begin_repeatable(w, pieces);
    /* One who comes late may have counted the next layer's. */
    if (has_passed(&work)) work.pieces = 0;
    while (take(&work)) {
        if (work.piece < at.first) at = enter_expert(w, layer, states, 0, 0);
        while (work.piece >= at.first + at.pieces)
            at = enter_expert(w, layer, states, at.number + 1, at.first + at.pieces);
        const int piece = work.piece - at.first, blocks = blocks_of(&at.product);
        multiply_piece(w, &at.product, piece / blocks, piece % blocks, &work);
    }
}

static void enter_mlp(Walk *w, const Layer *layer, const bf16 *states) {
    if (layer->router.count) {
        gather_rows(w, layer, states);
        enter_experts(w, layer, states);
        return;
    }
    const Part part = part_of(w, layer, states, 0);
    const Product product = into_mlp(w, &part);
    multiply(w, product, panels_into(part.mlp));
}

static Product down_from(const Walk *w, const Part *part, const Finish *finish) {
    Product product = {
        .left = part->activated,
        .rows = part->rows,
        .depth = part->mlp->inner,
        .weight = part->mlp->down,
        .finish = *finish,
    };
    product.finish.bias = part->mlp->down_bias;
    product.finish.places = part->places;
    product.finish.shares = part->shares;
    if (w->adapters) add_from(&w->adapters->down, w->step->lowered_too, &product.finish);
    return product;
}

/* Experts add to the same rows: a panel of all of them is one piece. */
static void leave_experts(Walk *w, const Layer *layer, const Finish *finish) {
    Work work = begin_short(w, w->model->hidden / PANEL);
    float sums[MOST_ROWS * PANEL] __attribute__((aligned(64)));
    for (; take(&work); kept(&work))
        for (int number = 0; number < parts_of(layer); number++) {
            const Part part = part_of(w, layer, NULL, number);
            Product product = down_from(w, &part, finish);
            product.at_once = rows_at_once(w->model, product.weight, work.pieces);
            for (int block = 0; block < blocks_of(&product); block++) {
                const Rows rows = rows_of(&product, block);
                sum_block(w->model, &product, work.piece, rows, sums);
                finish_block(&product.finish, sums, rows.first, rows.count, work.piece);
            }
        }
}

/* Adds to `finish`'s rows. */
static void leave_mlp(Walk *w, const Layer *layer, const Finish *finish) {
    if (layer->router.count) {
        leave_experts(w, layer, finish);
        return;
    }
    const Part part = part_of(w, layer, NULL, 0);
    const Product product = down_from(w, &part, finish);
    multiply(w, product, w->model->hidden / PANEL);
}
