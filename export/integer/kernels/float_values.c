
/* The layer at `positions` places, `step` values apart. A ReLU keeps NaN: it must reach the logits. */
static void dense(const dense_t *layer, bool relu, const number_t *x, uint32_t step, uint32_t positions, number_t *out)
{
    for (uint32_t place = 0; place < positions; place++) {
        for (uint32_t row = 0; row < layer->rows; row++) {
            float value = row_of(layer, row, x);
            *out++ = (number_t)(relu && value < 0.0f ? 0.0f : value);
        }
        x += step;
    }
}
