/* A step's attention, cut into pieces that threads take. */
#pragma once
#include "attention_tiles.h"

/* Tokens of a sequence that are attended to together. */
static inline int tile_of(const Model *model, const Step *step, int sequence) {
    return model->has_amx && step->starts[sequence + 1] - step->starts[sequence] >= TILE ? TILE : 1;
}

/* How a step's attention is cut into pieces. A token's heads are parted only where tokens are few.
 */
typedef struct {
    const Model *model;
    const Step *step;
    int kv_heads, is_few;
    int sequence, first; /* the one under way, and its first piece */
} Cut;

static int heads_together(const Cut *cut, int tile) {
    return tile == 1 && !cut->is_few ? cut->kv_heads : 1;
}

static int pieces_of(const Cut *cut, int sequence) {
    const int tile = tile_of(cut->model, cut->step, sequence);
    const int tokens = cut->step->starts[sequence + 1] - cut->step->starts[sequence];
    return (tokens + tile - 1) / tile * (cut->kv_heads / heads_together(cut, tile));
}

static void attend_piece(const Walk *w, const Layer *layer, Cut *cut, Work *work) {
    if (work->piece < cut->first) cut->sequence = cut->first = 0;
    for (int count; work->piece >= cut->first + (count = pieces_of(cut, cut->sequence));
         cut->sequence++)
        cut->first += count;
    const int tile = tile_of(w->model, w->step, cut->sequence);
    const int together = heads_together(cut, tile), parts = cut->kv_heads / together;
    const int piece = work->piece - cut->first, kv_head = piece % parts * together;
    const int token = w->step->starts[cut->sequence] + piece / parts * tile;
    if (tile == 1)
        attend_token(w->model, layer, w->step, &w->buffers, cut->sequence, token, kv_head,
                     kv_head + together, work);
    else
        attend_tile(w->model, layer, w->step, &w->buffers, cut->sequence, token, kv_head, work);
}

static void attend(Walk *w, const Layer *layer) {
    Cut cut = {.model = w->model, .step = w->step, .kv_heads = layer->kv_heads};
    cut.is_few = w->step->tokens < 4 * w->model->threads || layer->heads > MAX_HEADS;
    int pieces = 0;
    for (int sequence = 0; sequence < w->step->sequences; sequence++)
        pieces += pieces_of(&cut, sequence);
    for (Work work = begin_repeatable(w, pieces); take(&work);) attend_piece(w, layer, &cut, &work);
}
