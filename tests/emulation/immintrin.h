/* Stands in for the compiler's header of the same name: AVX-512 and AMX for processors that have AVX2
   alone, so that the compiled step is tested there, too. Most of it is SIMDe's (Debian package
   libsimde-dev); what that lacks is spelled out below, number by number, after Intel's Intrinsics
   Guide. Subnormal bfloat16 numbers count as zero, as VDPBF16PS and TDPBF16PS take them. */
#ifndef TRIVET_EMULATION
#define TRIVET_EMULATION
#define SIMDE_ENABLE_NATIVE_ALIASES
#include_next <immintrin.h>
#include <math.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#include <stdint.h>
#include <string.h>

typedef union {
    __m512 f;
    __m512i i;
    __m512bh b;
    float f32[16];
    int32_t i32[16];
    uint32_t u32[16];
    uint16_t u16[32];
    uint8_t u8[64];
} EmulatedWhole;

typedef union {
    __m256i i;
    __m256bh b;
    __m128i half[2];
    uint16_t u16[16];
    uint8_t u8[32];
} EmulatedHalf;

static inline uint16_t to_bf16(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (bits >> 16) | 0x40; /* not a number */
    if ((bits & 0x7f800000) == 0) return (bits >> 16) & 0x8000;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

static inline float of_bf16(uint16_t number) {
    uint32_t bits = (uint32_t)number << 16;
    if ((bits & 0x7f800000) == 0) bits &= 0x80000000;
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

static inline int32_t emulated_round(float number) {
    int fits = number >= -2147483648.0f && number < 2147483648.0f;
    return fits ? (int32_t)nearbyintf(number) : INT32_MIN;
}

/* Each of the vector's numbers: EMULATED(kind of result, member, how many, its value). */
#define EMULATED(kind, member, count, value)                                                            \
    kind made;                                                                                     \
    memset(&made, 0, sizeof made);                                                                 \
    for (int k = 0; k < count; k++) made.member[k] = (value)

static inline __m256i emulated_maskz_loadu256_u16(__mmask16 mask, const void* from) {
    EMULATED(EmulatedHalf, u16, 16, mask >> k & 1 ? ((const uint16_t*)from)[k] : 0);
    return made.i;
}
#undef _mm256_maskz_loadu_epi16
#define _mm256_maskz_loadu_epi16 emulated_maskz_loadu256_u16

static inline void emulated_mask_storeu256_u16(void* to, __mmask16 mask, __m256i vector) {
    EmulatedHalf given = {.i = vector};
    for (int k = 0; k < 16; k++)
        if (mask >> k & 1) ((uint16_t*)to)[k] = given.u16[k];
}
#undef _mm256_mask_storeu_epi16
#define _mm256_mask_storeu_epi16 emulated_mask_storeu256_u16

static inline __m512i emulated_maskz_loadu_u16(__mmask32 mask, const void* from) {
    EMULATED(EmulatedWhole, u16, 32, mask >> k & 1 ? ((const uint16_t*)from)[k] : 0);
    return made.i;
}
#undef _mm512_maskz_loadu_epi16
#define _mm512_maskz_loadu_epi16 emulated_maskz_loadu_u16

static inline __m512i emulated_maskz_loadu_u32(__mmask16 mask, const void* from) {
    EMULATED(EmulatedWhole, u32, 16, mask >> k & 1 ? ((const uint32_t*)from)[k] : 0);
    return made.i;
}
#undef _mm512_maskz_loadu_epi32
#define _mm512_maskz_loadu_epi32 emulated_maskz_loadu_u32

static inline __m512 emulated_maskz_loadu_f32(__mmask16 mask, const void* from) {
    EMULATED(EmulatedWhole, f32, 16, mask >> k & 1 ? ((const float*)from)[k] : 0);
    return made.f;
}
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_f32

static inline __m128i emulated_i32_to_u8(__m512i vector) {
    EmulatedWhole given = {.i = vector};
    EMULATED(EmulatedHalf, u8, 16, (uint8_t)given.u32[k]);
    return made.half[0];
}
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 emulated_i32_to_u8

static inline __m512 emulated_i32_to_f32(__m512i vector) {
    EmulatedWhole given = {.i = vector};
    EMULATED(EmulatedWhole, f32, 16, (float)given.i32[k]);
    return made.f;
}
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps emulated_i32_to_f32

static inline __m512i emulated_u16_to_u32(__m256i vector) {
    EmulatedHalf given = {.i = vector};
    EMULATED(EmulatedWhole, u32, 16, given.u16[k]);
    return made.i;
}
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32 emulated_u16_to_u32

static inline __m512i emulated_u8_to_u16(__m256i vector) {
    EmulatedHalf given = {.i = vector};
    EMULATED(EmulatedWhole, u16, 32, given.u8[k]);
    return made.i;
}
#undef _mm512_cvtepu8_epi16
#define _mm512_cvtepu8_epi16 emulated_u8_to_u16

static inline __m512bh emulated_two_to_bf16(__m512 high, __m512 low) {
    EmulatedWhole first = {.f = low}, second = {.f = high};
    EMULATED(EmulatedWhole, u16, 32, to_bf16(k < 16 ? first.f32[k] : second.f32[k - 16]));
    return made.b;
}
#undef _mm512_cvtne2ps_pbh
#define _mm512_cvtne2ps_pbh emulated_two_to_bf16

static inline __m256bh emulated_to_bf16(__m512 vector) {
    EmulatedWhole given = {.f = vector};
    EMULATED(EmulatedHalf, u16, 16, to_bf16(given.f32[k]));
    return made.b;
}
#undef _mm512_cvtneps_pbh
#define _mm512_cvtneps_pbh emulated_to_bf16

static inline __m512 emulated_f16_to_f32(__m256i vector) {
    EmulatedHalf given = {.i = vector};
    EmulatedWhole made;
    for (int k = 0; k < 2; k++) _mm256_storeu_ps(made.f32 + 8 * k, _mm256_cvtph_ps(given.half[k]));
    return made.f;
}
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps emulated_f16_to_f32

static inline __m512i emulated_mask_f32_to_i32(__m512i other, __mmask16 mask, __m512 vector) {
    EmulatedWhole given = {.f = vector}, instead = {.i = other};
    EMULATED(EmulatedWhole, i32, 16, mask >> k & 1 ? emulated_round(given.f32[k]) : instead.i32[k]);
    return made.i;
}
#undef _mm512_mask_cvtps_epi32
#define _mm512_mask_cvtps_epi32 emulated_mask_f32_to_i32
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32(vector) emulated_mask_f32_to_i32(_mm512_setzero_si512(), 0xffff, vector)

static inline __m512 emulated_reciprocals(__m512 vector) {
    EmulatedWhole given = {.f = vector};
    EMULATED(EmulatedWhole, f32, 16, 1 / given.f32[k]);
    return made.f;
}
#undef _mm512_rcp14_ps
#define _mm512_rcp14_ps emulated_reciprocals

static inline __m512 emulated_shuffle_quarters(__m512 first, __m512 second, int picked) {
    EmulatedWhole low = {.f = first}, high = {.f = second};
    EMULATED(EmulatedWhole, f32, 16, (k < 8 ? &low : &high)->f32[4 * (picked >> (2 * (k / 4)) & 3) + k % 4]);
    return made.f;
}
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4 emulated_shuffle_quarters

static inline __mmask32 emulated_testn_u16(__m512i first, __m512i second) {
    EmulatedWhole one = {.i = first}, other = {.i = second};
    __mmask32 made = 0;
    for (int k = 0; k < 32; k++) made |= (__mmask32)((one.u16[k] & other.u16[k]) == 0) << k;
    return made;
}
#undef _mm512_testn_epi16_mask
#define _mm512_testn_epi16_mask emulated_testn_u16

/* Sums by halves, as the compiler's. */
#define REDUCED(name, kind, member, given_as, both)                                                \
    static inline kind name(given_as vector) {                                                     \
        EmulatedWhole given;                                                                               \
        memcpy(&given, &vector, sizeof given);                                                     \
        for (int width = 8; width; width /= 2)                                                     \
            for (int k = 0; k < width; k++) {                                                      \
                kind a = given.member[k], b = given.member[k + width];                             \
                given.member[k] = both;                                                            \
            }                                                                                      \
        return given.member[0];                                                                    \
    }
REDUCED(emulated_sum_u32, uint32_t, u32, __m512i, a + b)
REDUCED(emulated_sum_f32, float, f32, __m512, a + b)
REDUCED(emulated_max_f32, float, f32, __m512, a > b ? a : b)
#undef _mm512_reduce_add_epi32
#define _mm512_reduce_add_epi32(vector) ((int32_t)emulated_sum_u32(vector))
#undef _mm512_reduce_add_ps
#define _mm512_reduce_add_ps emulated_sum_f32
#undef _mm512_reduce_max_ps
#define _mm512_reduce_max_ps emulated_max_f32

/* AMX: eight emulated_tiles of sixteen rows of 64 bytes, of which the configuration says how many count. */
static __thread uint8_t emulated_tiles[8][16][64];
static __thread struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} emulated_shapes;

static inline void emulated_tile_load(int tile, const void* from, int64_t stride) {
    memset(emulated_tiles[tile], 0, sizeof emulated_tiles[tile]);
    for (int row = 0; row < emulated_shapes.rows[tile]; row++)
        memcpy(emulated_tiles[tile][row], (const uint8_t*)from + row * stride, emulated_shapes.row_bytes[tile]);
}

static inline void emulated_tile_store(int tile, void* to, int64_t stride) {
    for (int row = 0; row < emulated_shapes.rows[tile]; row++)
        memcpy((uint8_t*)to + row * stride, emulated_tiles[tile][row], emulated_shapes.row_bytes[tile]);
}

/* sums[m][n] += the inner product of four bytes each, over all k. */
#define TILES_MULTIPLIED(name, sum, number, other, inner)                                          \
    static inline void name(int sums, int left, int right) {                                       \
        for (int m = 0; m < emulated_shapes.rows[sums]; m++)                                                \
            for (int k = 0; k < emulated_shapes.row_bytes[left] / 4; k++)                                   \
                for (int n = 0; n < emulated_shapes.row_bytes[sums] / 4; n++) {                             \
                    const number* a = (const number*)(emulated_tiles[left][m] + 4 * k);                     \
                    const other* b = (const other*)(emulated_tiles[right][k] + 4 * n);                      \
                    *((sum*)emulated_tiles[sums][m] + n) += (inner);                                        \
                }                                                                                  \
    }
TILES_MULTIPLIED(emulated_tile_bf16, float, uint16_t, uint16_t,
                 of_bf16(a[0]) * of_bf16(b[0]) + of_bf16(a[1]) * of_bf16(b[1]))
TILES_MULTIPLIED(emulated_tile_i8_u8, int32_t, int8_t, uint8_t,
                 a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3])
#undef _tile_loadconfig
#define _tile_loadconfig(from) memcpy(&emulated_shapes, from, sizeof emulated_shapes)
#undef _tile_release
#define _tile_release() memset(&emulated_shapes, 0, sizeof emulated_shapes)
#undef _tile_zero
#define _tile_zero(tile) memset(emulated_tiles[tile], 0, sizeof emulated_tiles[tile])
#undef _tile_loadd
#define _tile_loadd emulated_tile_load
#undef _tile_stored
#define _tile_stored emulated_tile_store
#undef _tile_dpbf16ps
#define _tile_dpbf16ps emulated_tile_bf16
#undef _tile_dpbsud
#define _tile_dpbsud emulated_tile_i8_u8
#endif
