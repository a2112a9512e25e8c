/* MLPs, in two halves between which threads meet: into the inner size, and down from it. */
#pragma once
#include "experts.h"

/* This thread's panels of what a product's rows are lowered to; threads meet behind it. */
static void lower(const Walk *w, const Added *added, const bf16 *rows, int depth, bf16 *to) {
    Finish finish = {.kind = LOWER,
                     .halves = to,
                     .width = added->depth,
                     .owners = added->owners,
                     .slots = w->step->adapter_slots};
    if (added->parts)
        multiply(w->model, rows, w->step->tokens, depth, added->down, added->depth / PANEL,
                 w->thread, &finish);
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

/* Reads what all threads have met behind. */
static void enter_mlp(Walk *w, const Layer *layer, const bf16 *states) {
    if (layer->router.count) gather_rows(w, layer, states);
    for (int number = 0; number < parts_of(layer); number++) {
        const Part part = part_of(w, layer, states, number);
        const Mlp *mlp = part.mlp;
        if (!part.rows) continue;
        Finish finish = {.kind = mlp->is_gated ? GATE : ACTIVATE,
                         .activation = mlp->activation,
                         .halves = part.activated,
                         .bias = mlp->into_bias,
                         .width = mlp->inner};
        if (w->adapters) add_from(&w->adapters->into, w->step->lowered_too, &finish);
        multiply(w->model, part.states, part.rows, w->model->hidden, mlp->into,
                 mlp->inner / (mlp->is_gated ? TILE : PANEL), w->thread, &finish);
    }
}

/* Adds to `finish`'s rows: a panel of all experts by the same thread. */
static void leave_mlp(Walk *w, const Layer *layer, Finish finish) {
    for (int number = 0; number < parts_of(layer); number++) {
        const Part part = part_of(w, layer, NULL, number);
        if (!part.rows) continue;
        finish.bias = part.mlp->down_bias;
        finish.places = part.places;
        finish.shares = part.shares;
        if (w->adapters) add_from(&w->adapters->down, w->step->lowered_too, &finish);
        multiply(w->model, part.activated, part.rows, part.mlp->inner, part.mlp->down,
                 w->model->hidden / PANEL, w->thread, &finish);
    }
}
