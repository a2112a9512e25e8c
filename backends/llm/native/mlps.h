/* MLPs, in two halves between which threads meet: into the inner size, and down from it. */
#pragma once
#include "experts.h"

/* What a product's rows are lowered to. */
static void lower(Walk *w, const Added *added, const bf16 *rows, int depth, bf16 *to) {
    const Product product = {
        .left = rows,
        .rows = w->step->tokens,
        .depth = depth,
        .weight = added->down,
        .finish = {.kind = LOWER,
                   .halves = to,
                   .width = added->depth,
                   .owners = added->owners,
                   .slots = w->step->adapter_slots},
    };
    if (added->parts) multiply(w, &product, added->depth / PANEL);
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

static int pieces_into(const Part *part) {
    return panels_into(part->mlp) * blocks_of(part->rows);
}

/* All experts' pieces are of one phase. */
static void enter_experts(Walk *w, const Layer *layer, const bf16 *states) {
    int pieces = 0, number = 0, first = 0; /* the first piece of the part under way */
    for (int i = 0; i < parts_of(layer); i++) {
        const Part part = part_of(w, layer, states, i);
        pieces += pieces_into(&part);
    }
    Part part = part_of(w, layer, states, number);
    Work work = begin_repeatable(w, pieces);
    /* One who comes late may have counted the next layer's. */
    if (has_passed(&work)) work.pieces = 0;
    while (take(&work)) {
        if (work.piece < first) number = first = 0, part = part_of(w, layer, states, number);
        for (int count; work.piece >= first + (count = pieces_into(&part)); first += count)
            part = part_of(w, layer, states, ++number);
        const int piece = work.piece - first, blocks = blocks_of(part.rows);
        const Product product = into_mlp(w, &part);
        multiply_block(w, &product, piece / blocks, piece % blocks, &work);
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
    multiply(w, &product, panels_into(part.mlp));
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
    float sums[PIECE_ROWS * PANEL] __attribute__((aligned(64)));
    for (; take(&work); kept(&work))
        for (int number = 0; number < parts_of(layer); number++) {
            const Part part = part_of(w, layer, NULL, number);
            const Product product = down_from(w, &part, finish);
            for (int block = 0; block < blocks_of(part.rows); block++) {
                sum_block(w->model, &product, work.piece, block, sums);
                finish_block(&product.finish, sums, block * PIECE_ROWS, rows_in(&product, block),
                             work.piece);
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
    multiply(w, &product, w->model->hidden / PANEL);
}
