/* The stimulator: state machine, lease, limits, pulses. Portable C11: no libc, no malloc, no globals; the memory is the
 * caller's, the clock is the caller's (device time in microseconds), the output is the caller's port.
 *
 *     sea_core_init(&core, &config, &port);
 *     for (;;) {
 *         sea_core_tick(&core, now_us);                 gives what is due by now
 *         sea_core_feed(&core, bytes, size, now_us);    takes what the host sent
 *         if (sea_core_to_decide(&core, &observation)) {   a board with a policy: outside any lock, pulses go on meanwhile
 *             config.policy->infer(observation, sea_core_logits(&core));
 *             sea_core_decided(&core, sea_core_logits(&core), now_us);   like feed and tick: one at a time
 *         }
 *         ... sleep until sea_core_next_us(&core) or until bytes come ...
 *     }
 */
#ifndef SEA_CORE_H
#define SEA_CORE_H

#include "sea_envelope.h"
#include "sea_frame.h"
#include "sea_integrity.h"
#include "sea_limits_check.h"
#include "sea_policy.h"
#include "sea_sensing.h"

/* The deliberately broken builds, which a checker must catch, exist only beside other faults for tests. */
#if (defined(SEA_BROKEN_RAMP) || defined(SEA_BROKEN_LEASE) || defined(SEA_BROKEN_BALANCE)) && !defined(SEA_TEST_BUILD)
#error "a broken build is a test build"
#endif

#define SEA_NEVER UINT64_MAX
#define SEA_REMEMBERED_NONCES 4u

/* A port short of memory may compile for its policy's own sizes; sea_core_init refuses a larger policy. */
#ifndef SEA_OBSERVATION_MAX
#define SEA_OBSERVATION_MAX SEA_POLICY_MAX_OBS
#endif
#ifndef SEA_DECIDED_SLOTS_MAX
#define SEA_DECIDED_SLOTS_MAX SEA_POLICY_MAX_SLOTS
#endif

typedef enum {
    SEA_OK = 0,
    SEA_ERR_ARGUMENT, /* a null pointer, or a policy of impossible size */
    SEA_ERR_CLOCK,    /* the time went backwards: the step was ignored */
    SEA_ERR_STATE     /* the state does not allow it */
} sea_status_t;

/* One biphasic pulse: the phases' integer charges sum to zero. */
typedef struct {
    uint64_t start_us;
    int32_t amplitude_uA[2];
    uint16_t width_us[2];
} sea_pulse_t;

/* What a port measured of the pulse it gave. */
typedef struct {
    int32_t residual_pC; /* charge left on the electrode */
    uint32_t peak_uV;    /* greatest voltage between the contacts */
    bool measured;       /* false: this port cannot measure the voltage: open, short and compliance are not judged */
} sea_given_t;

/* A fixed setting for FALLBACK, approved before it is compiled in; amplitude 0: none. */
typedef struct {
    uint32_t amplitude_uA;
    uint16_t width_us;
    uint32_t period_us;
} sea_fixed_t;

/* What the core needs of the hardware. Every function gets ctx. */
typedef struct {
    void *ctx;
    void (*tx)(void *ctx, const uint8_t *bytes, size_t size);
    /* Gives one whole pulse by a hardware one-shot, and says what was measured. False: it could not. */
    bool (*stimulate)(void *ctx, const sea_pulse_t *pulse, sea_given_t *given);
    /* Shorts the electrode to ground, or opens the short. */
    void (*ground)(void *ctx, bool grounded);
} sea_port_t;

typedef struct {
    uint8_t firmware_build[32];
    uint8_t model_hash[32];        /* all zero: bound to no model */
    uint8_t boot_cause;            /* SEA_CAUSE_POWER_ON, _WATCHDOG or _RESET: reported until something else happens */
    uint32_t boot_count;           /* upper half of each session number: a new one after each power-on */
    sea_effective_t limits;        /* run-time limits: they tighten the compiled ones, never loosen */
    sea_fixed_t fallback;          /* sea_core_init refuses one that is not inside every limit */
    const sea_policy_t *policy;    /* null: the host decides, OBSERVE is refused */
    const uint8_t *device_key;     /* SEA_KEY_SIZE bytes; null: bench mode, anybody may command a simulated output */
    bool simulated_output;         /* the port drives a virtual electrode alone; false: never armed without a key */
} sea_config_t;

typedef struct {
    uint64_t start_us;
    uint64_t lease_until_us;
    uint32_t id; /* 0: there is none */
    uint32_t period_us;
    uint32_t amplitude_uA;
    uint32_t lease_us;
    uint16_t slots;
    uint16_t next; /* first slot not yet dealt with */
    uint16_t width_us;
    uint16_t clamp;
    uint8_t mask[32];
} sea_decision_t;

typedef struct {
    uint32_t pulses;
    uint32_t slots_lapsed;
    uint32_t slots_late;
    uint32_t slots_too_soon;
    uint32_t frames;
    uint32_t frames_bad;
    uint32_t frames_old_sequence;
    uint32_t frames_old_session;
    uint32_t frames_unknown;
    uint32_t frames_forged;
    uint32_t orders_refused;
    uint32_t overruns;
    uint32_t slots_dose;
    uint32_t decisions_late;
} sea_counters_t;

/* An observation on its way through the board: assembled, then decided on. One at a time. */
typedef struct {
    uint32_t id; /* 0: there is none */
    uint32_t crc;
    uint32_t have; /* bit i: fragment i is there */
    uint32_t of_sequence; /* the frame that made it whole */
    uint64_t since_us; /* its first fragment came */
    uint64_t whole_us;
    bool whole; /* waits for its decision */
    bool taken; /* somebody infers on it: its bytes must not change */
    bool dropped; /* its session ended meanwhile: nothing may come of it */
    bool fresh; /* the policy's recurrent state is to be reset before the next decision */
    bool seen; /* `before` is the head of the one before, since ARM */
    uint8_t before[SEA_OBSERVE_HEAD_SIZE];
    uint8_t blob[SEA_OBSERVE_HEAD_SIZE + SEA_OBSERVATION_MAX];
} sea_observation_t;

/* What was last decided, kept so that a lost answer can be given again. */
typedef struct {
    uint32_t id; /* 0: nothing */
    uint32_t crc; /* of the observation */
    size_t size;
    uint8_t decision[SEA_DECISION_SIZE];
    int32_t logits[2u * SEA_DECIDED_SLOTS_MAX];
} sea_answer_t;

/* Everything the board knows. Read it through the functions below. All before `seal` changes only within a call, and is
 * summed up at its end; so are the configuration, the device key and the port. */
typedef struct {
    const sea_config_t *config;
    const sea_port_t *port;
    const uint8_t *device_key; /* as the configuration said at the start; null: bench mode */
    struct {
        const sea_config_t *config;
        const sea_port_t *port;
        const uint8_t *device_key;
    } again[2]; /* the same pointers: two of three tell which one has changed */
    sea_effective_t effective;
    uint64_t now_us;
    uint8_t state;
    uint8_t cause;
    bool corrupt; /* memory is not what it was */
    bool pulsed;
    uint32_t faults;
    uint32_t tx_sequence;
    uint32_t session; /* 0: none yet */
    uint32_t rx_sequence; /* newest of this session */
    uint16_t sessions;
    uint16_t refusal;
    bool armable; /* a handshake without refusal whose nonce is not spent */
    bool shadow; /* the policy decides in this session, and is never applied */
    uint8_t sensing_bad; /* in a row */
    uint8_t not_finite;  /* in a row */
    uint8_t late;        /* in a row: answers of the policy */
    uint8_t board_nonce[16];
    uint8_t model[32]; /* which the host says drives in this session; all zero: none */
    sea_auth_t auth; /* of the session */
    uint8_t host_nonces[SEA_REMEMBERED_NONCES][16]; /* [0] is this session's */
    uint32_t newest_id;
    sea_decision_t current;
    sea_decision_t queued;
    uint64_t last_pulse_us;
    sea_envelope_t envelope;
    uint64_t fixed_us; /* FALLBACK: when the next pulse of the fixed setting is due */
    sea_counters_t counters;
    uint32_t key_sum;
    uint32_t seal; /* the sum of all that stands before; what follows has a CRC of its own, or is only said again */
    sea_observation_t observation;
    sea_answer_t answer;
    sea_rx_t rx;
} sea_core_t;

sea_status_t sea_core_init(sea_core_t *core, const sea_config_t *config, const sea_port_t *port);

/* Gives everything that is due at or before now. */
sea_status_t sea_core_tick(sea_core_t *core, uint64_t now_us);

/* Takes bytes that came at now. Gives no pulse that is due at now: the next tick does. */
sea_status_t sea_core_feed(sea_core_t *core, const uint8_t *bytes, size_t size, uint64_t now_us);

/* True: a whole observation (policy->n_obs values) waits for the policy. It keeps still until sea_core_decided. Resets
 * the policy's recurrent state before the first observation after ARM, so call it where infer is called. */
bool sea_core_to_decide(sea_core_t *core, const int8_t **observation);

/* Memory of the core's own into which the policy may infer: 2 * policy->slots values. */
int32_t *sea_core_logits(sea_core_t *core);

/* Takes the policy's logits: judged and applied as SET_STIM is, answered with DECISION and LOGITS (frames at once: 1 or
 * 2, and one for each 52 logits). SEA_ERR_STATE: nothing waits, or its session has ended meanwhile. */
sea_status_t sea_core_decided(sea_core_t *core, const int32_t *logits, uint64_t now_us);

/* A person presses the board's own button: the only way out of SAFE_OFF. After MEMORY there is none but a new start. */
sea_status_t sea_core_person(sea_core_t *core);

/* The link's receiver lost bytes (a port's interrupt counts, its main loop says so). Repeated: FALLBACK. */
void sea_core_overrun(sea_core_t *core);

/* A sum of code or weights was wrong (a port's patrol, sea_integrity.h): SAFE_OFF, until the board is started anew. What the
 * core itself remembers it watches itself, at each call. */
void sea_core_corrupt(sea_core_t *core);

/* When the next thing is due; SEA_NEVER: nothing. It can lie in the past. */
uint64_t sea_core_next_us(const sea_core_t *core);

uint8_t sea_core_state(const sea_core_t *core);
uint8_t sea_core_cause(const sea_core_t *core);

/* End of the lease under way; 0: none. */
uint64_t sea_core_lease_until_us(const sea_core_t *core);

#endif
