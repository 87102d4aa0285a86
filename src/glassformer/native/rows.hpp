// Matrices of 16 and 32 bits: a few rows against a few vectors, sixteen columns at a time.
#pragma once

#include "operands.hpp"

namespace {

// Sixteen numbers, added up in the same order on every processor.
struct Wide {
#ifdef WITH_16
  __m512 v = _mm512_setzero_ps();
#elif defined(WITH_AVX2)
  __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
#else
  float v[16] = {};
#endif
};

inline Wide wide(const float* at) {
  Wide x;
#ifdef WITH_16
  x.v = _mm512_loadu_ps(at);
#elif defined(WITH_AVX2)
  x.low = _mm256_loadu_ps(at), x.high = _mm256_loadu_ps(at + 8);
#else
  std::memcpy(x.v, at, sizeof x.v);
#endif
  return x;
}

inline Wide wide(const uint16_t* at) {  // bfloat16 is the upper half of a float
  Wide x;
#ifdef WITH_16
  x.v = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at)), 16));
#elif defined(WITH_AVX2)
  const auto eight = [](const uint16_t* from) {
    const __m256i numbers = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(numbers, 16));
  };
  x.low = eight(at), x.high = eight(at + 8);
#else
  for (int i = 0; i < 16; i++) {
    const uint32_t bits = (uint32_t)at[i] << 16;
    std::memcpy(x.v + i, &bits, 4);
  }
#endif
  return x;
}

inline void fuse(const Wide& a, const Wide& b, Wide& sum) {  // sum += a * b
#ifdef WITH_16
  sum.v = _mm512_fmadd_ps(a.v, b.v, sum.v);
#elif defined(WITH_AVX2)
  sum.low = _mm256_fmadd_ps(a.low, b.low, sum.low), sum.high = _mm256_fmadd_ps(a.high, b.high, sum.high);
#else
  for (int i = 0; i < 16; i++) sum.v[i] += a.v[i] * b.v[i];
#endif
}

inline float total(const Wide& x) {
  float v[16];
  std::memcpy(v, &x, sizeof v);
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) v[i] += v[i + half];
  return v[0];
}

#ifdef WITH_16
constexpr int ROWS = 4, MET = 4;  // rows and tokens whose products are kept in registers
#else
constexpr int ROWS = 2, MET = 2;
#endif

// R rows of a matrix that lies row by row, against N tokens: out[row][token].
template <int R, int N, class W>
void rows_of(const W* w, int columns, const float* x, float (*out)[MET]) {
  Wide sums[R][N];
  for (int c = 0; c < columns; c += 16) {
    Wide vectors[N];
    for (int t = 0; t < N; t++) vectors[t] = wide(x + (int64_t)t * columns + c);
    for (int r = 0; r < R; r++) {
      const Wide weights = wide(w + (int64_t)r * columns + c);
      for (int t = 0; t < N; t++) fuse(weights, vectors[t], sums[r][t]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int t = 0; t < N; t++) out[r][t] = total(sums[r][t]);
}

template <int R, class W>
void rows_of(int n, const W* w, int columns, const float* x, float (*out)[MET]) {
  switch (n) {
    case 1: rows_of<R, 1>(w, columns, x, out); break;
#ifdef WITH_16
    case 2: rows_of<R, 2>(w, columns, x, out); break;
    case 3: rows_of<R, 3>(w, columns, x, out); break;
#endif
    default: rows_of<R, MET>(w, columns, x, out);
  }
}

template <class W>
void multiply_rows(const Matrix& w, const Vectors& x, int n, float* y, bool add, int thread, int threads) {
  const int pieces = (w.rows + ROWS - 1) / ROWS, columns = w.columns;
  const int from = (int)((int64_t)pieces * thread / threads) * ROWS;
  const int to = std::min(w.rows, (int)((int64_t)pieces * (thread + 1) / threads) * ROWS);
  float out[ROWS][MET];
  for (int start = 0; start < n; start += STAY)
    for (int row = from; row < to; row += ROWS) {
      const W* weights = (const W*)w.blocks + (int64_t)row * columns;
      const int rows = std::min(ROWS, to - row);
      for (int t = start; t < std::min(n, start + STAY); t += MET) {
        const int left = std::min(MET, std::min(n, start + STAY) - t);
        const float* vectors = x.exact + (int64_t)t * columns;
        if (rows == ROWS)
          rows_of<ROWS>(left, weights, columns, vectors, out);
        else
          for (int r = 0; r < rows; r++) rows_of<1>(left, weights + (int64_t)r * columns, columns, vectors, out + r);
        for (int r = 0; r < rows; r++)
          for (int i = 0; i < left; i++) {
            float* at = y + (int64_t)(t + i) * w.rows + row + r;
            *at = (add ? *at : 0) + out[r][i] + (w.bias ? w.bias[row + r] : 0);
          }
      }
    }
}

}  // namespace
