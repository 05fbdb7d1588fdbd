
typedef struct {
    const number_t *weight; /* rows of `length` */
    const number_t *bias;
    uint32_t rows;
    uint32_t length;
} dense_t;

static inline float row_of(const dense_t *layer, uint32_t row, const number_t *x)
{
    return product(layer->weight + row * layer->length, x, layer->length) + (float)layer->bias[row];
}
