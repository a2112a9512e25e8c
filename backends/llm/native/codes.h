/* Weights of codes of few bits, out of the order in which packing.py lays them. */
#pragma once
#include <string.h>

#include "vectors.h"

/* A panel's codes of 32 inputs are 16 vectors: 8 of its first half of columns, then 8 of its
 * second. A vector has four neighbouring inputs of a column in each lane. */
enum { CODE_VECTORS = 16 };

/* The bits of a code that lie in the first plane; the others lie in a second. */
INLINE int low_bits(const int bits) {
    return bits == 3 ? 2 : bits == 5 || bits == 6 ? 4 : bits;
}

static inline int64_t plane_bytes(int width) {
    return CODE_VECTORS * 64 * width / 8;
}

/* The i-th vector of a plane (or of its second half) of `width` bits, of which 8 / width share
 * their bytes. */
INLINE __m512i from_plane(const int width, const char *plane, const int i) {
    const int sharing = 8 / width, shift = width * (i % sharing);
    __m512i bytes = _mm512_loadu_si512(plane + 64 * (i / sharing));
    if (shift) bytes = _mm512_srli_epi16(bytes, shift);
    return width == 8 ? bytes : _mm512_and_si512(bytes, _mm512_set1_epi8((1 << width) - 1));
}

/* Where the codes of a panel lie, and what they are scaled by. */
typedef struct {
    const char *low, *high;
    const void *scales, *minimums; /* [groups, PANEL]; minimums may be null */
} PanelCodes;

static inline int bits_at(int width, const char *plane, int vector, int byte) {
    const int sharing = 8 / width;
    const uint8_t bytes = (uint8_t)plane[64 * (vector / sharing) + byte];
    return bytes >> width * (vector % sharing) & ((1 << width) - 1);
}

/* One code: that of input `place` of a column. */
static int code_at(int bits, const PanelCodes *panel, int place, int half, int lane) {
    const int width = low_bits(bits), chunk = place / 32, vector = half * 8 + place % 32 / 4;
    const int byte = lane * 4 + place % 4;
    int code = bits_at(width, panel->low + chunk * plane_bytes(width), vector, byte);
    if (bits > width)
        code |= bits_at(bits - width, panel->high + chunk * plane_bytes(bits - width), vector, byte)
                << width;
    return code;
}

static inline const void *floats_at(const Matrix *matrix, const void *from, int64_t index) {
    return (const char *)from + index * (matrix->scale_kind == FLOAT32 ? 4 : 2);
}

static PanelCodes panel_codes(const Matrix *matrix, int depth, int panel) {
    const int64_t chunks = (int64_t)panel * (depth / 32);
    const int64_t first = (int64_t)panel * (depth / matrix->group) * PANEL;
    const int low = low_bits(matrix->bits), high = matrix->bits - low;
    return (PanelCodes){
        .low = (const char *)matrix->low + chunks * plane_bytes(low),
        .high = high ? (const char *)matrix->high + chunks * plane_bytes(high) : 0,
        .scales = floats_at(matrix, matrix->scales, first),
        .minimums = matrix->minimums ? floats_at(matrix, matrix->minimums, first) : 0,
    };
}

/* Of half a panel: 16 columns of a group. */
static inline __m512 load_floats(const Matrix *matrix, const void *from, int group, int half) {
    const void *at = floats_at(matrix, from, (int64_t)group * PANEL + half * TILE);
    switch (matrix->scale_kind) {
    case FLOAT16: return _mm512_cvtph_ps(_mm256_loadu_si256(at));
    case BFLOAT16: return load_bf16(at);
    default: return _mm512_loadu_ps(at);
    }
}

/* The planes of 32 inputs of half a panel. */
typedef struct {
    const char *low, *high;
} Planes;

INLINE Planes planes_at(const int bits, const PanelCodes *panel, int chunk, int half) {
    const int low = low_bits(bits), high = bits - low;
    return (Planes){panel->low + chunk * plane_bytes(low) + half * plane_bytes(low) / 2,
                    panel->high + chunk * plane_bytes(high) + half * plane_bytes(high) / 2};
}

/* The i-th vector of codes. */
INLINE __m512i codes_at(const int bits, Planes planes, const int i) {
    const int width = low_bits(bits);
    const __m512i below = from_plane(width, planes.low, i);
    if (width == bits) return below;
    return _mm512_or_si512(below,
                           _mm512_slli_epi16(from_plane(bits - width, planes.high, i), width));
}

/* Calls a function whose first argument is a constant. */
#define FOR_BITS(bits, call, ...)                                                                  \
    switch (bits) {                                                                                \
    case 2: call(2, __VA_ARGS__); break;                                                           \
    case 3: call(3, __VA_ARGS__); break;                                                           \
    case 4: call(4, __VA_ARGS__); break;                                                           \
    case 5: call(5, __VA_ARGS__); break;                                                           \
    case 6: call(6, __VA_ARGS__); break;                                                           \
    default: call(8, __VA_ARGS__); break;                                                          \
    }
