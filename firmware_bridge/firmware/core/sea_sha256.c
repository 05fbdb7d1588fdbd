#include "sea_sha256.h"

static uint32_t rotate(uint32_t x, unsigned n)
{
    return (x >> n) | (x << (32u - n));
}

/* FIPS 180-4, 6.2.2; K of 4.2.2. The schedule W is kept as its last 16 words. */
static void compress(uint32_t hash[8], const uint8_t *block)
{
    static const uint32_t k[64] = {
        0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
        0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
        0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
        0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
        0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
        0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
        0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
        0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u,
    };
    uint32_t w[16];
    uint32_t s[8];
    for (unsigned i = 0; i < 16u; i++) {
        const uint8_t *b = block + (4u * i);
        w[i] = ((uint32_t)b[0] << 24) | ((uint32_t)b[1] << 16) | ((uint32_t)b[2] << 8) | (uint32_t)b[3];
        s[i % 8u] = hash[i % 8u];
    }
    for (unsigned t = 0; t < 64u; t++) {
        if (t >= 16u) {
            const uint32_t x = w[(t + 1u) & 15u];  /* t - 15 */
            const uint32_t y = w[(t + 14u) & 15u]; /* t - 2 */
            w[t & 15u] += (rotate(x, 7) ^ rotate(x, 18) ^ (x >> 3)) + w[(t + 9u) & 15u] +
                          (rotate(y, 17) ^ rotate(y, 19) ^ (y >> 10));
        }
        const uint32_t t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                            ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[t] + w[t & 15u];
        const uint32_t t2 = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
                            ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        for (unsigned i = 7; i > 0u; i--) {
            s[i] = s[i - 1u];
        }
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8u; i++) {
        hash[i] += s[i];
    }
}

void sea_sha256_init(sea_sha256_t *sha)
{
    static const sea_sha256_t start = {.hash = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, 0x510e527fu,
                                                0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u}}; /* 5.3.3 */
    *sha = start;
}

void sea_sha256_update(sea_sha256_t *sha, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sha->block[sha->size % SEA_SHA256_BLOCK] = data[i];
        sha->size++;
        if ((sha->size % SEA_SHA256_BLOCK) == 0u) {
            compress(sha->hash, sha->block);
        }
    }
}

void sea_sha256_final(sea_sha256_t *sha, uint8_t digest[SEA_SHA256_SIZE])
{
    static const uint8_t padding[SEA_SHA256_BLOCK] = {0x80u};
    const uint64_t bits = sha->size * 8u;
    sea_sha256_update(sha, padding, 1u + (size_t)((119u - (sha->size % SEA_SHA256_BLOCK)) % SEA_SHA256_BLOCK)); /* 5.1.1 */
    for (unsigned i = 0; i < 8u; i++) {
        const uint8_t byte = (uint8_t)((bits >> (56u - (8u * i))) & 0xffu);
        sea_sha256_update(sha, &byte, 1);
    }
    for (unsigned i = 0; i < SEA_SHA256_SIZE; i++) {
        digest[i] = (uint8_t)((sha->hash[i / 4u] >> (24u - (8u * (i % 4u)))) & 0xffu);
    }
}
