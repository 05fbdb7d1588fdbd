/* A patrol over some bytes, one bit of which flips amid its second turn. */
#include "sea_integrity.h"

static uint8_t image[8192];

/* Pieces looked at from the flip until it is found; 0: not found, or found where nothing had changed. */
size_t patrol_turns(const uint8_t *bytes, size_t size, size_t piece, size_t at, unsigned bit)
{
    const size_t pieces = (size + piece - 1u) / piece;
    sea_patrol_t patrol;
    for (size_t i = 0; i < size; i++) {
        image[i] = bytes[i];
    }
    sea_patrol_start(&patrol, image, size);
    for (size_t i = 0; i < pieces + pieces / 2u; i++) {
        if (!sea_patrol(&patrol, piece)) {
            return 0;
        }
    }
    image[at] = (uint8_t)(image[at] ^ (1u << bit));
    for (size_t i = 1; i <= 3u * pieces; i++) {
        if (!sea_patrol(&patrol, piece)) {
            return i;
        }
    }
    return 0;
}
