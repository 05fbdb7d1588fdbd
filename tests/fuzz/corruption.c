/* Damaged frames at the decoder.
 *
 * usage: corruption COUNT SEED   prints one JSON line; exit code 1 when a damaged frame was accepted.
 * A frame is damaged when no block of the stream is one of those sent. Whatever has a right CRC counts as accepted, its
 * tag aside: with a key a forged tag is refused on top of that. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sea_frame.h"

#include "harness_dump.h" /* SIZES: type and payload of every message */

enum { BITS, BURST, BYTES, CUT, REMOVED, INSERTED, SPLICED, JOINED, SWAPPED, KINDS };
static const char *const NAMES[KINDS] = {"bits", "burst", "bytes", "cut", "removed", "inserted", "spliced", "joined", "swapped"};

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

typedef struct {
    uint8_t bytes[2 * SEA_FRAME_MAX + 16];
    size_t size;
} stream_t;

/* A whole frame, signed or not, without its delimiters. */
static void make(stream_t *s)
{
    uint8_t payload[SEA_PAYLOAD_MAX];
    uint8_t out[SEA_FRAME_MAX];
    static sea_auth_t keyed;
    static const uint8_t key[SEA_KEY_SIZE] = {1};
    const uint32_t row = draw(sizeof SIZES / sizeof SIZES[0]);
    const uint32_t zeros = draw(3); /* of three bytes: how long the runs between zeros are */
    sea_frame_t frame = {.version = SEA_PROTOCOL, .type = SIZES[row].type, .sequence = draw(UINT32_MAX), .session = draw(65536),
                         .time_us = draw(UINT32_MAX), .payload = payload, .size = SIZES[row].size};
    for (size_t i = 0; i < frame.size; i++) {
        payload[i] = (uint8_t)(draw(3) < zeros ? 0 : draw(256));
    }
    if (!keyed.keyed) {
        sea_auth_open(&keyed, key, key, key);
    }
    s->size = sea_frame_sign(out, &frame, draw(2) == 0 ? &keyed : NULL) - 2u;
    memcpy(s->bytes, out + 1, s->size);
}

static void flip(stream_t *s, size_t bit)
{
    s->bytes[bit / 8u] ^= (uint8_t)(1u << (bit % 8u));
}

static void damage(stream_t *s, const stream_t *other, unsigned kind)
{
    const size_t at = draw((uint32_t)s->size);
    const size_t left = s->size - at;
    size_t n = 1u + draw(8);
    switch (kind) {
    case BITS:
        for (size_t i = 0; i < n; i++) {
            flip(s, draw(8u * (uint32_t)s->size));
        }
        break;
    case BURST: /* of up to 64 bits, each wrong with probability 1/2 */
        for (size_t i = 8u * at; i < 8u * s->size && i < 8u * at + 8u * n; i++) {
            if (draw(2) == 0) {
                flip(s, i);
            }
        }
        break;
    case BYTES:
        for (size_t i = 0; i < n; i++) {
            s->bytes[draw((uint32_t)s->size)] = (uint8_t)draw(256);
        }
        break;
    case CUT:
        s->size = at;
        break;
    case REMOVED:
        n = n < left ? n : left;
        memmove(s->bytes + at, s->bytes + at + n, left - n);
        s->size -= n;
        break;
    case INSERTED:
        memmove(s->bytes + at + n, s->bytes + at, left);
        for (size_t i = 0; i < n; i++) {
            s->bytes[at + i] = (uint8_t)draw(256);
        }
        s->size += n;
        break;
    case SPLICED: /* the head of one, the tail of another */
        n = draw((uint32_t)other->size);
        memcpy(s->bytes + at, other->bytes + n, other->size - n);
        s->size = at + other->size - n;
        break;
    case JOINED: /* the delimiter between two is lost */
        memcpy(s->bytes + s->size, other->bytes, other->size);
        s->size += other->size;
        break;
    default: { /* two pieces of the frame change places */
        const size_t from = draw((uint32_t)s->size);
        for (size_t i = 0; i < n && at + i < s->size && from + i < s->size; i++) {
            const uint8_t byte = s->bytes[at + i];
            s->bytes[at + i] = s->bytes[from + i];
            s->bytes[from + i] = byte;
        }
        break;
    }
    }
}

static bool is_sent(const uint8_t *block, size_t size, const stream_t *sent)
{
    return size == sent->size && memcmp(block, sent->bytes, size) == 0;
}

int main(int argc, char **argv)
{
    uint64_t counts[KINDS] = {0};
    uint64_t events[8] = {0};
    uint64_t done = 0;
    uint64_t accepted = 0;
    uint64_t whole = 0;
    static stream_t a, b, s;
    if (argc != 3) {
        return 2;
    }
    const uint64_t count = strtoull(argv[1], NULL, 10);
    state = strtoull(argv[2], NULL, 10) * 2654435769u + 88172645463325252u;
    make(&b);
    while (done < count) {
        const unsigned kind = draw(KINDS);
        sea_rx_t rx;
        sea_frame_t frame;
        bool intact = false;
        bool taken = false;
        make(&a);
        s = a;
        damage(&s, &b, kind);
        s.bytes[s.size++] = 0;
        sea_rx_init(&rx);
        for (size_t i = 0, from = 0; i < s.size; i++) {
            const sea_rx_event_t event = sea_rx_push(&rx, s.bytes[i], &frame);
            if (s.bytes[i] != 0) {
                continue;
            }
            events[event]++;
            if (is_sent(s.bytes + from, i - from, &a) || is_sent(s.bytes + from, i - from, &b)) {
                intact = true;
                whole += event == SEA_RX_FRAME || event == SEA_RX_AUTH;
            } else if (event == SEA_RX_FRAME || event == SEA_RX_AUTH) {
                taken = true;
            }
            from = i + 1u;
        }
        b = a;
        accepted += taken;
        if (!intact) {
            counts[kind]++;
            done++;
        }
    }
    printf("{\"corrupted\": %" PRIu64 ", \"accepted\": %" PRIu64 ", \"left_whole\": %" PRIu64 ", \"kinds\": {", done, accepted,
           whole);
    for (size_t i = 0; i < KINDS; i++) {
        printf("%s\"%s\": %" PRIu64, i == 0 ? "" : ", ", NAMES[i], counts[i]);
    }
    printf("}, \"refused_by\": {\"cobs\": %" PRIu64 ", \"size\": %" PRIu64 ", \"crc\": %" PRIu64 ", \"version\": %" PRIu64
           "}}\n",
           events[SEA_RX_COBS], events[SEA_RX_SIZE] + events[SEA_RX_OVERRUN], events[SEA_RX_CRC], events[SEA_RX_VERSION]);
    return accepted != 0;
}
