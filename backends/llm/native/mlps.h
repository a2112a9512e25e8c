/* MLPs, in two halves between which threads meet: into the inner size, and down from it. */
#pragma once
#include "experts.h"

/* Of as many rows as there are tokens. */
static Product lowering(const Walk *w, const Added *added, const bf16 *rows, int depth, bf16 *to) {
    return (Product){
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
}

/* What a product's rows are lowered to. */
static void lower(Walk *w, const Added *added, const bf16 *rows, int depth, bf16 *to) {
    multiply(w, lowering(w, added, rows, depth, to));
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
    const bf16 *states;       /* [rows, hidden] */
    bf16 *activated;          /* [rows, inner] */
    const Added *into, *down; /* by adapters, or null */
    bf16 *lowered;            /* [rows, the most depth] */
    const int32_t *places;
    const float *shares; /* as in Finish */
} Part;

/* The `number`th of a layer's experts, or its only MLP. */
static Part part_of(const Walk *w, const Layer *layer, const bf16 *states, int number) {
    const Router *router = &layer->router;
    const Choice *choice = &w->buffers.choice;
    const Mlp *mlp = layer->mlps + number;
    Part part = {.mlp = mlp, .rows = w->step->tokens, .states = states};
    const int64_t routed = (int64_t)w->step->tokens * router->active;
    const int64_t first = number < router->count ? choice->starts[number] : routed;
    if (w->adapters) {
        part.into = w->adapters->into + number;
        part.down = w->adapters->down + number;
        part.lowered = w->step->lowered_too + first * w->step->most_depth;
    }
    if (number < router->count) {
        part.rows = (int)(choice->starts[number + 1] - first);
        part.states = choice->gathered + first * w->model->hidden;
        part.activated = w->buffers.activated + first * mlp->inner;
        part.places = choice->places + first;
        part.shares = choice->shares + first;
    } else {
        part.activated = w->buffers.activated + routed * layer->mlps[0].inner;
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
    if (part->into) add_from(part->into, part->lowered, &product.finish);
    return product;
}

/* What a part's rows are lowered to, before its MLP and behind. */
static Product lower_into(const Walk *w, const Part *part) {
    Product product = lowering(w, part->into, part->states, w->model->hidden, part->lowered);
    product.rows = part->rows, product.finish.places = part->places;
    return product;
}

static Product lower_down(const Walk *w, const Part *part) {
    Product product = lowering(w, part->down, part->activated, part->mlp->inner, part->lowered);
    product.rows = part->rows, product.finish.places = part->places;
    return product;
}

/* One of several products that each part of a layer has, and what they read. */
typedef struct {
    Product (*of)(const Walk *w, const Part *part);
    const Layer *layer;
    const bf16 *states;
} Products;

/* One of them, and the first of its pieces. */
typedef struct {
    int number, first, pieces;
    Product product;
} Entered;

static Entered enter_part(const Walk *w, const Products *products, int number, int first) {
    const Part part = part_of(w, products->layer, products->states, number);
    Entered entered = {.number = number, .first = first, .product = products->of(w, &part)};
    Product *product = &entered.product;
    const int panels = panels_in(product);
    if (!panels) return entered;
    product->at_once = rows_at_once(w->model, product->weight, panels);
    entered.pieces = panels * blocks_of(product);
    return entered;
}

/* All parts' pieces are of one phase. */
static void multiply_parts(Walk *w, Products products) {
    int pieces = 0;
    for (int number = 0; number < parts_of(products.layer); number++)
        pieces += enter_part(w, &products, number, 0).pieces;
    Entered at = enter_part(w, &products, 0, 0);
    Work work = begin_repeatable(w, pieces);
    /* One who comes late may have counted the next layer's. */
    if (has_passed(&work)) work.pieces = 0;
    while (take(&work)) {
        if (work.piece < at.first) at = enter_part(w, &products, 0, 0);
        while (work.piece >= at.first + at.pieces)
            at = enter_part(w, &products, at.number + 1, at.first + at.pieces);
        const int piece = work.piece - at.first, blocks = blocks_of(&at.product);
        multiply_piece(w, &at.product, piece / blocks, piece % blocks, &work);
    }
}

/* A layer's only MLP is multiplied with all rows as they are. */
static void multiply_all(Walk *w, Products products) {
    if (products.layer->router.count) {
        multiply_parts(w, products);
        return;
    }
    const Part part = part_of(w, products.layer, products.states, 0);
    multiply(w, products.of(w, &part));
}

static void enter_mlp(Walk *w, const Layer *layer, const bf16 *states) {
    if (layer->router.count) gather_rows(w, layer, states);
    if (w->adapters) multiply_all(w, (Products){lower_into, layer, states});
    multiply_all(w, (Products){into_mlp, layer, states});
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
    if (part->down) add_from(part->down, part->lowered, &product.finish);
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
    if (w->adapters) multiply_all(w, (Products){lower_down, layer, NULL});
    if (layer->router.count) {
        leave_experts(w, layer, finish);
        return;
    }
    const Part part = part_of(w, layer, NULL, 0);
    multiply(w, down_from(w, &part, finish));
}
