/* Who may command the board: keys of a session and the tag that each frame carries (docs/security.md). Host and board
 * run the same functions: firmware_bridge/security/auth.py is checked against these byte by byte. */
#ifndef SEA_AUTH_H
#define SEA_AUTH_H

#include <stdbool.h>

#include "sea_hmac.h"

#define SEA_KEY_SIZE 32u   /* a device key, and a session key */
#define SEA_NONCE_SIZE 16u
#define SEA_TAG_SIZE 8u    /* of a frame: SEA_AUTH_SIZE of sea_messages.h */
#define SEA_AUTH_LAST 0xfffffffeu /* the last sequence that is signed or taken: a session is opened anew before it wraps */

/* Who signs. It is part of what is signed, so that a frame sent back to its sender is never taken. */
typedef enum { SEA_FROM_HOST = 0x48, SEA_FROM_BOARD = 0x42 } sea_from_t;

/* The key of the session under way, taken in once. */
typedef struct {
    bool keyed; /* false: bench mode, nothing is signed, nothing checked */
    sea_hmac_t session;
} sea_auth_t;

/* The board's nonce: never the same twice, as long as boots never is. */
void sea_auth_nonce(const uint8_t device_key[SEA_KEY_SIZE], uint32_t boots, uint32_t session,
                    uint8_t nonce[SEA_NONCE_SIZE]);

/* HMAC(device key, host nonce || board nonce). */
void sea_auth_session_key(const uint8_t device_key[SEA_KEY_SIZE], const uint8_t host_nonce[SEA_NONCE_SIZE],
                          const uint8_t board_nonce[SEA_NONCE_SIZE], uint8_t session_key[SEA_KEY_SIZE]);

/* Opens a session; a null device key: bench mode. */
void sea_auth_open(sea_auth_t *auth, const uint8_t *device_key, const uint8_t host_nonce[SEA_NONCE_SIZE],
                   const uint8_t board_nonce[SEA_NONCE_SIZE]);

/* The first 8 bytes of HMAC(session key, from || body up to its auth field). The body holds session and sequence. */
void sea_auth_tag(const sea_auth_t *auth, sea_from_t from, const uint8_t *body, size_t size,
                  uint8_t tag[SEA_TAG_SIZE]);

/* Whether a body has its tag: in time that does not depend on where they differ. Bench mode: a tag of zeros. */
bool sea_auth_check(const sea_auth_t *auth, sea_from_t from, const uint8_t *body, size_t size,
                    const uint8_t tag[SEA_TAG_SIZE]);

/* The tag of a release verdict: HMAC(device key, "sea-dbs release 1" || model hash || SHA-256 of the verdict). */
void sea_auth_release(const uint8_t device_key[SEA_KEY_SIZE], const uint8_t model_hash[SEA_SHA256_SIZE],
                      const uint8_t verdict_hash[SEA_SHA256_SIZE], uint8_t tag[SEA_SHA256_SIZE]);

/* Whether whoever holds the device key released this model. */
bool sea_auth_is_released(const uint8_t device_key[SEA_KEY_SIZE], const uint8_t model_hash[SEA_SHA256_SIZE],
                          const uint8_t verdict_hash[SEA_SHA256_SIZE], const uint8_t tag[SEA_SHA256_SIZE]);

#endif
