#include "sea_auth.h"

#include "sea_bytes.h"

/* What a device key signs is told apart by its length: 17 bytes a nonce, 32 a session key, 81 a release. */

void sea_auth_nonce(const uint8_t device_key[SEA_KEY_SIZE], uint32_t boots, uint32_t session,
                    uint8_t nonce[SEA_NONCE_SIZE])
{
    uint8_t said[17] = {'b', 'o', 'a', 'r', 'd', ' ', 'n', 'o', 'n'};
    uint8_t digest[SEA_SHA256_SIZE];
    sea_hmac_t hmac;
    sea_put_u32(said + 9, boots);
    sea_put_u32(said + 13, session);
    sea_hmac_init(&hmac, device_key, SEA_KEY_SIZE);
    sea_hmac_update(&hmac, said, sizeof said);
    sea_hmac_final(&hmac, digest);
    sea_copy(nonce, digest, SEA_NONCE_SIZE);
}

void sea_auth_session_key(const uint8_t device_key[SEA_KEY_SIZE], const uint8_t host_nonce[SEA_NONCE_SIZE],
                          const uint8_t board_nonce[SEA_NONCE_SIZE], uint8_t session_key[SEA_KEY_SIZE])
{
    sea_hmac_t hmac;
    sea_hmac_init(&hmac, device_key, SEA_KEY_SIZE);
    sea_hmac_update(&hmac, host_nonce, SEA_NONCE_SIZE);
    sea_hmac_update(&hmac, board_nonce, SEA_NONCE_SIZE);
    sea_hmac_final(&hmac, session_key);
}

void sea_auth_open(sea_auth_t *auth, const uint8_t *device_key, const uint8_t host_nonce[SEA_NONCE_SIZE],
                   const uint8_t board_nonce[SEA_NONCE_SIZE])
{
    *auth = (sea_auth_t){.keyed = device_key != NULL};
    if (auth->keyed) {
        uint8_t session_key[SEA_KEY_SIZE];
        sea_auth_session_key(device_key, host_nonce, board_nonce, session_key);
        sea_hmac_init(&auth->session, session_key, sizeof session_key);
    }
}

void sea_auth_tag(const sea_auth_t *auth, sea_from_t from, const uint8_t *body, size_t size,
                  uint8_t tag[SEA_TAG_SIZE])
{
    uint8_t digest[SEA_SHA256_SIZE] = {0};
    if (auth->keyed) {
        const uint8_t who = (uint8_t)from;
        sea_hmac_t hmac = auth->session;
        sea_hmac_update(&hmac, &who, 1);
        sea_hmac_update(&hmac, body, size);
        sea_hmac_final(&hmac, digest);
    }
    sea_copy(tag, digest, SEA_TAG_SIZE);
}

bool sea_auth_check(const sea_auth_t *auth, sea_from_t from, const uint8_t *body, size_t size,
                    const uint8_t tag[SEA_TAG_SIZE])
{
    uint8_t right[SEA_TAG_SIZE];
    sea_auth_tag(auth, from, body, size, right);
    return sea_equal(right, tag, sizeof right);
}

void sea_auth_release(const uint8_t device_key[SEA_KEY_SIZE], const uint8_t model_hash[SEA_SHA256_SIZE],
                      const uint8_t verdict_hash[SEA_SHA256_SIZE], uint8_t tag[SEA_SHA256_SIZE])
{
    static const uint8_t what[17] = {'s', 'e', 'a', '-', 'd', 'b', 's', ' ', 'r', 'e', 'l', 'e', 'a', 's', 'e', ' ', '1'};
    sea_hmac_t hmac;
    sea_hmac_init(&hmac, device_key, SEA_KEY_SIZE);
    sea_hmac_update(&hmac, what, sizeof what);
    sea_hmac_update(&hmac, model_hash, SEA_SHA256_SIZE);
    sea_hmac_update(&hmac, verdict_hash, SEA_SHA256_SIZE);
    sea_hmac_final(&hmac, tag);
}

bool sea_auth_is_released(const uint8_t device_key[SEA_KEY_SIZE], const uint8_t model_hash[SEA_SHA256_SIZE],
                          const uint8_t verdict_hash[SEA_SHA256_SIZE], const uint8_t tag[SEA_SHA256_SIZE])
{
    uint8_t right[SEA_SHA256_SIZE];
    sea_auth_release(device_key, model_hash, verdict_hash, right);
    return sea_equal(right, tag, sizeof right);
}
