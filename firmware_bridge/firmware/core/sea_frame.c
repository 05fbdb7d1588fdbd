#include "sea_frame.h"

uint32_t sea_crc32(uint32_t crc, const uint8_t *data, size_t size)
{
    /* a nibble at a time: 64 bytes of table instead of 1024 */
    static const uint32_t table[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
        0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
    };
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

static uint32_t seed(uint8_t type)
{
    return sea_type_is_frozen(type) ? 0u : SEA_SCHEMA_SEED;
}

void sea_rx_init(sea_rx_t *rx)
{
    rx->filled = 0;
    rx->overrun = false;
}

/* In place: the result is never longer than what has been read. */
static bool cobs_decode(uint8_t *data, size_t size, size_t *out)
{
    size_t read = 0;
    size_t written = 0;
    while (read < size) {
        const uint8_t code = data[read++];
        if (code == 0 || (size_t)(code - 1u) > size - read) {
            return false;
        }
        for (uint8_t i = 1; i < code; i++) {
            data[written++] = data[read++];
        }
        if (read < size) {
            data[written++] = 0; /* a code of 255 never fits into a block, so each code stands for a zero */
        }
    }
    *out = written;
    return true;
}

static sea_rx_event_t decode(sea_rx_t *rx, sea_frame_t *frame)
{
    const uint8_t *body = rx->block;
    size_t size = 0;
    if (!cobs_decode(rx->block, rx->filled, &size)) {
        return SEA_RX_COBS;
    }
    if (size < SEA_BODY_MIN || size > SEA_BODY_MAX) {
        return SEA_RX_SIZE;
    }
    frame->version = body[0];
    frame->type = body[1];
    frame->sequence = sea_get_u32(body + 2);
    frame->session = sea_get_u32(body + 6);
    frame->time_us = sea_get_u64(body + 10);
    frame->payload = body + SEA_HEADER_SIZE;
    frame->size = size - SEA_BODY_MIN;
    if (sea_crc32(seed(frame->type), body, size - 4) != sea_get_u32(body + size - 4)) {
        return SEA_RX_CRC;
    }
    if (frame->version != SEA_PROTOCOL && !sea_type_is_frozen(frame->type)) {
        return SEA_RX_VERSION;
    }
    static const uint8_t none[SEA_AUTH_SIZE] = {0};
    frame->body = body;
    frame->auth = frame->payload + frame->size;
    return sea_equal(frame->auth, none, sizeof none) ? SEA_RX_FRAME : SEA_RX_AUTH;
}

sea_rx_event_t sea_rx_push(sea_rx_t *rx, uint8_t byte, sea_frame_t *frame)
{
    sea_rx_event_t event = SEA_RX_NONE;
    if (byte != 0) {
        if (rx->filled < sizeof rx->block) {
            rx->block[rx->filled++] = byte;
        } else {
            rx->overrun = true;
        }
        return SEA_RX_NONE;
    }
    if (rx->overrun) {
        event = SEA_RX_OVERRUN;
    } else if (rx->filled > 0) {
        event = decode(rx, frame);
    }
    sea_rx_init(rx);
    return event;
}

size_t sea_frame_encode(uint8_t out[SEA_FRAME_MAX], const sea_frame_t *frame)
{
    return sea_frame_sign(out, frame, NULL);
}

size_t sea_frame_sign(uint8_t out[SEA_FRAME_MAX], const sea_frame_t *frame, const sea_auth_t *auth)
{
    static const sea_auth_t bench = {.keyed = false};
    uint8_t body[SEA_BODY_MAX];
    size_t size = SEA_HEADER_SIZE;
    size_t code_at = 1;
    size_t written = 2;
    if (frame->size > SEA_PAYLOAD_MAX) {
        return 0;
    }
    sea_put_u8(body, frame->version);
    sea_put_u8(body + 1, frame->type);
    sea_put_u32(body + 2, frame->sequence);
    sea_put_u32(body + 6, frame->session);
    sea_put_u64(body + 10, frame->time_us);
    sea_copy(body + size, frame->payload, frame->size);
    size += frame->size;
    sea_auth_tag(auth != NULL ? auth : &bench, SEA_FROM_BOARD, body, size, body + size);
    size += SEA_AUTH_SIZE;
    sea_put_u32(body + size, sea_crc32(seed(frame->type), body, size));
    size += 4;
    out[0] = 0;
    for (size_t i = 0; i < size; i++) {
        if (body[i] == 0) {
            out[code_at] = (uint8_t)(written - code_at);
            code_at = written++;
        } else {
            out[written++] = body[i];
        }
    }
    out[code_at] = (uint8_t)(written - code_at);
    out[written++] = 0;
    return written;
}
