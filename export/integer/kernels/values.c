
/* The layer at `positions` places, `step` values apart: a convolution, or a linear layer with one place. */
static void dense(const dense_t *layer, const int16_t *x, uint32_t step, uint32_t positions, int16_t *out)
{
    for (uint32_t place = 0; place < positions; place++) {
        for (uint32_t row = 0; row < layer->rows; row += 2) {
            uint32_t next = row + 1 < layer->rows ? row + 1 : row;
            int32_t result[2];
            two_rows(layer, row, next, x, result);
            out[row] = (int16_t)result[0];
            out[next] = (int16_t)result[1];
        }
        x += step;
        out += layer->rows;
    }
}
