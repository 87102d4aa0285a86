// Products of a matrix and some vectors.
#pragma once

#include "rows.hpp"
#include "tiles.hpp"

namespace {

// y = W x + bias for n tokens, this thread's share of the rows; `add`: y += that.
void multiply(const Matrix& w, const Vectors& x, int n, float* y, bool add, int thread, int threads) {
  if (w.bits == 32) return multiply_rows<float>(w, x, n, y, add, thread, threads);
  if (w.bits == 16) return multiply_rows<uint16_t>(w, x, n, y, add, thread, threads);
  const int tiles = (w.rows + TILE - 1) / TILE;
  const int64_t bytes = (int64_t)(w.columns / GROUP) * (w.bits == 4 ? BYTES_4 : BYTES_8);
  const int from = (int)((int64_t)tiles * thread / threads), to = (int)((int64_t)tiles * (thread + 1) / threads);
  float out[AT_ONCE][TILE];
  for (int start = 0; start < n; start += STAY) {
    const int stop = std::min(n, start + STAY);
    int done = start, held = 0;  // tokens that four tiles have met already, and how many of the tiles are left
    for (int tile = from; tile < to; tile++) {
      const uint8_t* block = w.blocks + tile * bytes;
      const int row = tile * TILE, rows = std::min(TILE, w.rows - row);
#ifdef WITH_512
      if (held) {
        held--;
      } else if (x.exact && tile + 2 <= to && row + 2 * TILE <= w.rows) {
        __m512 sums[AT_ONCE];
        for (int t = start; t < stop; t += AT_ONCE) {
          const int left = std::min(AT_ONCE, stop - t), groups = w.columns / GROUP;
          if (w.bits == 4)
            exact_tiles_of<4>(left, block, bytes, groups, x, t, sums);
          else
            exact_tiles_of<8>(left, block, bytes, groups, x, t, sums);
          for (int i = 0; i < left; i++) put(w, sums[i], t + i, row, y, add);
        }
        done = stop, held = 1;
      } else if (x.exact) {
        done = start;
      } else if (w.bits == 8 && stop - start >= MANY && tile + 4 <= to && row + 4 * TILE <= w.rows) {
        done = multiply_many(w, x, block, bytes, row, start, stop, y, add);
        held = 3;
      } else {
        done = start;
      }
#endif
      for (int t = done; t < stop; t += AT_ONCE) {
        const int left = std::min(AT_ONCE, stop - t);
        switch (left) {
          case 1: tile_of<1>(w, block, x, t, out); break;
          case 2: tile_of<2>(w, block, x, t, out); break;
          case 3: tile_of<3>(w, block, x, t, out); break;
          default: tile_of<4>(w, block, x, t, out);
        }
        for (int i = 0; i < left; i++) {
          float* at = y + (int64_t)(t + i) * w.rows + row;
          for (int r = 0; r < rows; r++) at[r] = (add ? at[r] : 0) + out[i][r] + (w.bias ? w.bias[row + r] : 0);
        }
      }
    }
  }
}

}  // namespace
