// What is multiplied: matrices of 4, 8, 16 or 32 bits, and vectors as they are or rounded to 8 bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(GLASSFORMER_PORTABLE)
#include <immintrin.h>
#define WITH_AVX2
#ifdef __AVX512F__
#define WITH_16
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define WITH_VNNI _mm256_dpbusd_epi32
#if defined(__AVX512BW__) && defined(__AVX512DQ__)
#define WITH_512
#endif
#elif defined(__AVXVNNI__)
#define WITH_VNNI _mm256_dpbusd_avx_epi32
#endif
#endif

extern "C" {

struct Matrix {
  const uint8_t* blocks;
  const float* bias;  // (rows), or null
  int32_t rows, columns, bits;
};
}

namespace {

constexpr int TILE = 8;     // rows of a matrix that lie together: one for each lane of a vector
constexpr int GROUP = 32;   // columns that share a scale
constexpr int MANY = 6;     // tokens that four tiles of 8 bits meet at once
constexpr int AT_ONCE = 4;  // tokens for which a tile is unpacked once, queries for which a key is read once
constexpr int STAY = 128;   // tokens whose vectors stay in the second-level cache

// A block is 8 rows x 32 columns, columns in 8 steps of 4, a step row by row:
//   8 bits   256 bytes, signed                                then 8 scales (fp16)
//   4 bits   128 bytes, step c low and step c + 4 high        then 8 scales, 8 minima (fp16)
// so that w = scale * q, or scale * q + minimum. Matrices of 16 (bfloat16) and 32 bits lie row by row, without blocks.
constexpr int BYTES_8 = 256 + 16, BYTES_4 = 128 + 16 + 16;

// Vectors as they are, or rounded to 8 bits in groups of 32: x = scale * q
struct Vectors {
  float* exact;        // or null: they are rounded
  int8_t* q;
  float *scale, *sum;  // sum = x_0 + ... + x_31 of a group, what a minimum is multiplied with
  int32_t* offset;     // -128 * (q_0 + ... + q_31)
  int columns;
  const int8_t* of(int token) const { return q + (int64_t)token * columns; }
  int64_t group(int token) const { return (int64_t)token * (columns / GROUP); }
};

// x is a group of 32; `at` is its number among all of `into`.
void keep_group(const float* x, const Vectors& into, int64_t at) {
  if (into.exact) {
    float sums[8] = {};  // in this order on every processor
    for (int i = 0; i < GROUP; i++) sums[i % 8] += x[i];
    into.sum[at] = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    std::memcpy(into.exact + at * GROUP, x, GROUP * sizeof(float));
    return;
  }
  int8_t* q = into.q + at * GROUP;
  float largest = 0;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < GROUP; i++) largest = std::max(largest, std::fabs(x[i]));
  const float step = largest / 127, inverse = largest > 0 ? 127 / largest : 0;
  int total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < GROUP; i++) {
    const int n = (int)std::nearbyint(x[i] * inverse);
    q[i] = (int8_t)n;
    total += n;
  }
  into.scale[at] = step;
  into.sum[at] = step * (float)total;
  into.offset[at] = -128 * total;
}

[[maybe_unused]] float half(const uint8_t* at) {
  uint16_t h;
  std::memcpy(&h, at, 2);
  const int exponent = (h >> 10) & 31, fraction = h & 1023;
  const float size = exponent ? std::ldexp((float)(1024 + fraction), exponent - 25) : std::ldexp((float)fraction, -24);
  return h & 0x8000 ? -size : size;
}

}  // namespace
