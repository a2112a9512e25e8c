/* One thread's way through a step, and the memory in which threads leave things for one another. */
#pragma once
#include "rounding.h"
#include "team.h"

/* Which experts a step's tokens have chosen. */
typedef struct {
    float *logits;    /* [rows, experts to whole panels] */
    int32_t *experts; /* [rows, active] */
    float *scores;    /* the shares of those */
    int32_t *starts;  /* [experts + 1]: where each one's rows begin, sorted by expert */
    int32_t *places;  /* of each of those rows: its token, */
    float *shares;    /* its share */
    bf16 *gathered;   /* and what its expert reads, [rows, active, hidden] */
    float *of_shared; /* [rows]: the share of the expert of all */
} Choice;

/* What a step keeps between its phases; rows are padded to whole tiles. */
typedef struct {
    float *residual, *qkv;
    float *change; /* what is normed before it is added */
    bf16 *normed, *query, *attended, *activated;
    bf16 *beside;   /* normed for the MLP of a layer whose attention reads something else */
    bf16 *arranged; /* rows in the order of a matrix's inputs */
    char *rounded, *own_rounded; /* rows in 8 bits, and few of them that the thread alone reads */
    Choice choice;
} Buffers;

typedef struct {
    const Model *model;
    const Step *step;
    Buffers buffers;
    Team *team;
    int thread;
    uint32_t phase;           /* the last that was begun */
    const Adapters *adapters; /* of the layer under way, or null */
} Walk;

/* Of short pieces, which are done once. */
static inline Work begin_short(Walk *w, int pieces) {
    return begin(w->team, w->thread, &w->phase, pieces, 0);
}

static inline Work begin_repeatable(Walk *w, int pieces) {
    return begin(w->team, w->thread, &w->phase, pieces, 1);
}

/* The most that any layer needs, for each row. */
typedef struct {
    int64_t qkv, query, attended, activated, experts, active;
    int64_t rounded, arranged; /* rows of the products that want it */
} Widths;

/* Queries lie in whole tiles of 32, zeros behind each. */
static inline int padded_head(int size) {
    return (size + 31) / 32 * 32;
}

static inline int64_t panels_of(int64_t columns) {
    return (columns + PANEL - 1) / PANEL;
}

static inline void at_least(int64_t *width, int64_t wanted) {
    if (*width < wanted) *width = wanted;
}

static void read_by(const Matrix *matrix, int64_t depth, Widths *most) {
    if (matrix->bits != 16) at_least(&most->rounded, depth);
    if (matrix->order) at_least(&most->arranged, depth);
}

static Widths widths_of(const Model *model, const Layer *layers) {
    Widths most = {0};
    for (const Layer *layer = layers; layer < layers + model->layers; layer++) {
        const Router *router = &layer->router;
        at_least(&most.qkv, (int64_t)(layer->heads + 2 * layer->kv_heads) * layer->head_dim);
        at_least(&most.query, (int64_t)layer->heads * padded_head(layer->head_dim));
        at_least(&most.attended, (int64_t)layer->heads * layer->head_dim);
        at_least(&most.experts, router->count);
        at_least(&most.active, router->active);
        int64_t inner = layer->mlps[0].inner;
        if (router->count) inner *= router->active;
        if (router->has_shared) inner += layer->mlps[router->count].inner;
        at_least(&most.activated, inner);
        read_by(layer->qkv, model->hidden, &most);
        read_by(layer->output, (int64_t)layer->heads * layer->head_dim, &most);
        if (router->count) continue;
        read_by(layer->mlps[0].into, model->hidden, &most);
        read_by(layer->mlps[0].down, layer->mlps[0].inner, &most);
    }
    if (model->head) read_by(model->head, model->hidden, &most); /* a layer by itself has none */
    return most;
}

static char *cut(char **from, int64_t bytes) {
    char *start = *from;
    *from += (bytes + 63) / 64 * 64;
    return start;
}

static void lay_out_choice(const Model *m, const Widths *most, int64_t rows, char **from,
                           Choice *choice) {
    const int64_t all = rows * most->active;
    choice->logits = (float *)cut(from, rows * panels_of(most->experts) * PANEL * 4);
    choice->experts = (int32_t *)cut(from, all * 4);
    choice->scores = (float *)cut(from, all * 4);
    choice->starts = (int32_t *)cut(from, (most->experts + 1) * 4);
    choice->places = (int32_t *)cut(from, all * 4);
    choice->shares = (float *)cut(from, all * 4);
    /* Tiles read whole ones beyond the last row. */
    choice->gathered = (bf16 *)cut(from, all ? (all + ROWS) * m->hidden * 2 : 0);
    choice->of_shared = (float *)cut(from, most->experts ? rows * 4 : 0);
}

/* `thread`'s. */
static char *lay_out(const Model *m, const Layer *layers, const Step *step, int thread, char *from,
                     Buffers *b) {
    const Widths most = widths_of(m, layers);
    const int64_t rows =
        panels_of(step->tokens > step->samples ? step->tokens : step->samples) * ROWS;
    b->residual = (float *)cut(&from, rows * m->hidden * 4);
    b->change = (float *)cut(&from, rows * m->hidden * 4);
    b->qkv = (float *)cut(&from, rows * most.qkv * 4);
    b->normed = (bf16 *)cut(&from, rows * m->hidden * 2);
    b->beside = (bf16 *)cut(&from, rows * m->hidden * 2);
    b->query = (bf16 *)cut(&from, rows * most.query * 2);
    b->attended = (bf16 *)cut(&from, rows * most.attended * 2);
    b->activated = (bf16 *)cut(&from, (rows + ROWS) * most.activated * 2);
    b->arranged = (bf16 *)cut(&from, rows * most.arranged * 2);
    b->rounded = cut(&from, m->has_amx ? 0 : rounded_bytes(rows, most.rounded));
    const int64_t own = (rounded_bytes(FEW_ROWS, most.rounded) + 63) / 64 * 64;
    b->own_rounded = cut(&from, own * m->threads) + own * thread;
    lay_out_choice(m, &most, rows, &from, &b->choice);
    return from;
}
