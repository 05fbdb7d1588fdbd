#include "sea_sensing.h"

#define RAIL_LOW INT8_MIN
#define RAIL_HIGH INT8_MAX

/* Counters wrap: what lies within half the range ahead is later. */
static bool is_later(uint32_t a, uint32_t b)
{
    return a != b && a - b < UINT32_C(0x80000000);
}

static unsigned judge_values(const sea_msg_observe_head_t *head)
{
    const uint32_t count = (uint32_t)head->valid + head->blanked;
    unsigned bits = 0;
    if (head->sample_last - head->sample_first + 1u != count) {
        bits |= SEA_SENSING_GAP;
    }
    if (head->minimum == head->maximum && count >= SEA_SENSING_FLAT_VALUES) {
        bits |= SEA_SENSING_FLAT;
        if (head->minimum == RAIL_LOW || head->maximum == RAIL_HIGH) {
            bits |= SEA_SENSING_RAILED;
        }
    }
    if (head->age_us > SEA_SENSING_AGE_MAX_US) {
        bits |= SEA_SENSING_STALE;
    }
    if (100u * (uint32_t)head->valid < SEA_SENSING_VALID_PERCENT * count) {
        bits |= SEA_SENSING_BLANKED;
    }
    return bits;
}

uint8_t sea_sensing_judge(const uint8_t *head, const uint8_t *previous)
{
    sea_msg_observe_head_t now;
    sea_msg_observe_head_t before;
    if (!sea_unpack_observe_head(&now, head, SEA_OBSERVE_HEAD_SIZE)) {
        return SEA_SENSING_GAP;
    }
    unsigned bits = judge_values(&now);
    if (previous != NULL && sea_unpack_observe_head(&before, previous, SEA_OBSERVE_HEAD_SIZE)) {
        if (is_later(now.sample_first, before.sample_last + 1u)) {
            bits |= SEA_SENSING_GAP;
        }
        if (now.sample_last - now.sample_first != before.sample_last - before.sample_first) {
            bits |= SEA_SENSING_RATE;
        }
        if (!is_later(now.sample_last, before.sample_last)) {
            bits |= SEA_SENSING_STUCK;
        }
    }
    return (uint8_t)bits;
}
