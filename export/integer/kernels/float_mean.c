
/* Means over `group` neighbouring rows: none of the rows is kept. */
static void dense_mean(const dense_t *layer, const number_t *x, uint32_t group, float *out)
{
    for (uint32_t start = 0; start < layer->rows; start += group) {
        float sum = 0.0f;
        for (uint32_t row = start; row < start + group; row++) {
            sum += row_of(layer, row, x);
        }
        *out++ = sum / (float)group;
    }
}
