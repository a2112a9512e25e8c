/* Planes of 4 bits from the order of matrices/bits.py into that of packing.py, in one pass: a load
 * has nothing else to do with most of a file. */
#pragma once
#include <stdint.h>
#include <string.h>

/* 32 inputs of a column, 16 bytes, to its lane of a half panel's four vectors. */
static inline void lay_chunk(const uint8_t *from, uint8_t *to) {
    const uint32_t nibbles = 0x0f0f0f0f;
    for (int i = 0; i < 2; i++) {
        uint64_t eight;
        memcpy(&eight, from + 8 * i, 8);
        const uint32_t first = (uint32_t)eight, second = (uint32_t)(eight >> 32);
        const uint32_t low = (first & nibbles) | (second & nibbles) << 4;
        const uint32_t high = (first >> 4 & nibbles) | (second & ~nibbles);
        memcpy(to + 64 * i, &low, 4);
        memcpy(to + 64 * (i + 2), &high, 4);
    }
}

/* `columns` (whole panels) of `depth` inputs: of the plane's row order[column], or zeros where that
 * is negative. */
void lay_nibbles(const uint8_t *plane, const int64_t *order, int64_t columns, int64_t depth,
                 uint8_t *to) {
    const int64_t chunks = depth / 32, row_bytes = depth / 2;
    static const uint8_t nothing[16];
    for (int64_t column = 0; column < columns; column++) {
        const int64_t panel = column / 32, half = column % 32 / 16, lane = column % 16;
        uint8_t *place = to + panel * chunks * 512 + half * 256 + lane * 4;
        const uint8_t *row = plane + order[column] * row_bytes;
        for (int64_t chunk = 0; chunk < chunks; chunk++, place += 512)
            lay_chunk(order[column] < 0 ? nothing : row + chunk * 16, place);
    }
}
