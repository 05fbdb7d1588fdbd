
typedef struct {
    uint32_t channels;
    uint32_t outputs; /* positions */
    uint32_t window;
    int32_t multiplier;
    uint8_t shift;
    int32_t low;
    int32_t high;
} pool_t;
