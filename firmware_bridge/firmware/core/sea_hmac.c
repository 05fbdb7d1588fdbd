#include "sea_hmac.h"

void sea_hmac_init(sea_hmac_t *hmac, const uint8_t *key, size_t size)
{
    uint8_t block[SEA_SHA256_BLOCK] = {0};
    sea_sha256_init(&hmac->inner);
    sea_sha256_init(&hmac->outer);
    if (size > sizeof block) { /* a long key is hashed first */
        sea_sha256_t sha = hmac->inner;
        sea_sha256_update(&sha, key, size);
        sea_sha256_final(&sha, block);
    } else {
        for (size_t i = 0; i < size; i++) {
            block[i] = key[i];
        }
    }
    for (size_t i = 0; i < sizeof block; i++) {
        const uint8_t inner = block[i] ^ 0x36u;
        const uint8_t outer = block[i] ^ 0x5cu;
        sea_sha256_update(&hmac->inner, &inner, 1);
        sea_sha256_update(&hmac->outer, &outer, 1);
    }
}

void sea_hmac_update(sea_hmac_t *hmac, const uint8_t *data, size_t size)
{
    sea_sha256_update(&hmac->inner, data, size);
}

void sea_hmac_final(sea_hmac_t *hmac, uint8_t tag[SEA_SHA256_SIZE])
{
    sea_sha256_final(&hmac->inner, tag);
    sea_sha256_update(&hmac->outer, tag, SEA_SHA256_SIZE);
    sea_sha256_final(&hmac->outer, tag);
}
