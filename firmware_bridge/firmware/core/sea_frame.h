/* Frames: COBS blocks between zero bytes, a header, a payload, eight bytes of authentication, a CRC-32. */
#ifndef SEA_FRAME_H
#define SEA_FRAME_H

#include "sea_auth.h"
#include "sea_messages.h"

typedef struct {
    uint8_t version;
    uint8_t type;
    uint32_t sequence;
    uint32_t session;
    uint64_t time_us;
    const uint8_t *payload; /* received: inside the receiver, valid until its next byte */
    size_t size;
    const uint8_t *body; /* received: from the version on, up to and without auth; its size is auth - body */
    const uint8_t *auth; /* received */
} sea_frame_t;

typedef enum {
    SEA_RX_NONE = 0,
    SEA_RX_FRAME,
    SEA_RX_COBS,     /* no COBS block */
    SEA_RX_SIZE,     /* shorter or longer than any frame */
    SEA_RX_OVERRUN,  /* no delimiter for longer than the longest frame */
    SEA_RX_CRC,
    SEA_RX_AUTH,     /* a whole frame whose authentication bytes are not zero: for who holds the session's key */
    SEA_RX_VERSION   /* another protocol version, in a type without a frozen layout */
} sea_rx_event_t;

/* A receiver: bytes in, one event for each delimiter that ends something. */
typedef struct {
    uint8_t block[SEA_BODY_MAX + 1];
    size_t filled;
    bool overrun;
} sea_rx_t;

void sea_rx_init(sea_rx_t *rx);
sea_rx_event_t sea_rx_push(sea_rx_t *rx, uint8_t byte, sea_frame_t *frame);

/* Writes a whole frame with a delimiter on both sides; returns its size, 0 for a payload that is too long. */
size_t sea_frame_encode(uint8_t out[SEA_FRAME_MAX], const sea_frame_t *frame);

/* The same with the board's tag; null, or no key: zeros. */
size_t sea_frame_sign(uint8_t out[SEA_FRAME_MAX], const sea_frame_t *frame, const sea_auth_t *auth);

/* CRC-32 (ISO-HDLC), continued from a running value as zlib's crc32 does. */
uint32_t sea_crc32(uint32_t crc, const uint8_t *data, size_t size);

#endif
