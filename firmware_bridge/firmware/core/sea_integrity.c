#include "sea_integrity.h"

/* Each step can be undone, so two sums that once differ differ for ever after, as long as the words are the same. */
static uint32_t mix(uint32_t sum, uint32_t word)
{
    const uint32_t product = (sum ^ word) * UINT32_C(0x9e3779b1);
    return product ^ (product >> 15);
}

/* One load, in the processor's own order: a sum never leaves it. Byte by byte a sum of the core took twice as long. */
static uint32_t word_at(const uint8_t *bytes)
{
    uint32_t word;
    __builtin_memcpy(&word, bytes, sizeof word);
    return word;
}

uint32_t sea_sum(uint32_t sum, const uint8_t *bytes, size_t size)
{
    size_t i = 0;
    for (; i + 16u <= size; i += 16u) { /* four words a turn: the loop itself took half of the instructions */
        sum = mix(sum, word_at(bytes + i));
        sum = mix(sum, word_at(bytes + i + 4u));
        sum = mix(sum, word_at(bytes + i + 8u));
        sum = mix(sum, word_at(bytes + i + 12u));
    }
    for (; i + 4u <= size; i += 4u) {
        sum = mix(sum, word_at(bytes + i));
    }
    for (; i < size; i++) {
        sum = mix(sum, bytes[i]);
    }
    return sum;
}

void sea_patrol_start(sea_patrol_t *patrol, const uint8_t *start, size_t size)
{
    *patrol = (sea_patrol_t){.start = start, .size = size, .right = sea_sum(0, start, size)};
}

bool sea_patrol(sea_patrol_t *patrol, size_t bytes)
{
    const size_t left = patrol->size - patrol->at;
    const size_t here = bytes < left ? bytes : left;
    patrol->sum = sea_sum(patrol->sum, patrol->start + patrol->at, here);
    patrol->at += here;
    bool right = true;
    if (patrol->at == patrol->size) {
        right = patrol->sum == patrol->right;
        patrol->at = 0;
        patrol->sum = 0;
    }
    return right;
}
