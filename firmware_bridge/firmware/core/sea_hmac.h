/* HMAC-SHA-256 (RFC 2104). */
#ifndef SEA_HMAC_H
#define SEA_HMAC_H

#include "sea_sha256.h"
/* A key already taken in: copied for each message, so that a tag costs the message alone. Keep it as secret as the key. */
typedef struct {
    sea_sha256_t inner;
    sea_sha256_t outer;
} sea_hmac_t;

void sea_hmac_init(sea_hmac_t *hmac, const uint8_t *key, size_t size);
void sea_hmac_update(sea_hmac_t *hmac, const uint8_t *data, size_t size);
void sea_hmac_final(sea_hmac_t *hmac, uint8_t tag[SEA_SHA256_SIZE]);

#endif
