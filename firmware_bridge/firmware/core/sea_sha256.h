/* SHA-256 (FIPS 180-4). Bytes only, of fewer than 2^61; no tables in writable memory. */
#ifndef SEA_SHA256_H
#define SEA_SHA256_H

#include <stddef.h>
#include <stdint.h>
#define SEA_SHA256_SIZE 32u
#define SEA_SHA256_BLOCK 64u
typedef struct {
    uint32_t hash[8];
    uint64_t size; /* bytes taken so far */
    uint8_t block[SEA_SHA256_BLOCK];
} sea_sha256_t;

void sea_sha256_init(sea_sha256_t *sha);
void sea_sha256_update(sea_sha256_t *sha, const uint8_t *data, size_t size);
void sea_sha256_final(sea_sha256_t *sha, uint8_t digest[SEA_SHA256_SIZE]);

#endif
