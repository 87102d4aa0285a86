// Rows of floats become rows of blocks.
#pragma once

#include "operands.hpp"

namespace {

// The nearest 16-bit float, to even where two are as near.
inline uint16_t half_of(float x) {
#ifdef WITH_AVX2
  return (uint16_t)_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
#else
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint16_t sign = (bits >> 16) & 0x8000;
  const float size = std::fabs(x);
  if (!(size < 65520.0f)) return sign | (std::isnan(x) ? 0x7e00 : 0x7c00);
  int exponent;
  std::frexp(size, &exponent);
  exponent = std::max(exponent, -13);  // below it numbers of 16 bits are equally far apart
  const int steps = (int)std::nearbyint(std::ldexp(size, 11 - exponent));  // of 2^(exponent - 11)
  return sign + (uint16_t)(steps < 1024 ? steps : ((exponent + 14) << 10) + steps - 1024);  // 2,048 steps carry over
#endif
}

// 32 numbers of a row into row r of a block; whether the block holds them as they were.
template <int BITS>
bool pack_group(const float* from, uint8_t* block, int r) {
  float least = from[0], most = from[0];
#pragma omp simd reduction(min : least) reduction(max : most)
  for (int i = 0; i < GROUP; i++) least = std::min(least, from[i]), most = std::max(most, from[i]);
  uint8_t* tail = block + (BITS == 4 ? 128 : 256) + 2 * r;
  const uint16_t scale_16 = half_of(BITS == 4 ? (most - least) / 15 : std::max(most, -least) / 127);
  const uint16_t minimum_16 = BITS == 4 ? half_of(least) : 0;
  const float scale = half((const uint8_t*)&scale_16), minimum = half((const uint8_t*)&minimum_16);
  const float inverse = scale > 0 ? 1 / scale : 0, bottom = BITS == 4 ? 0 : -127, top = BITS == 4 ? 15 : 127;
  float q[GROUP];
  int same = 1;
#pragma omp simd reduction(& : same)
  for (int i = 0; i < GROUP; i++) {
    q[i] = std::nearbyint(std::min(std::max((from[i] - minimum) * inverse, bottom), top));
    same &= q[i] * scale + minimum == from[i];
  }
  for (int i = 0; i < GROUP; i++) {
    const int c = i / 4, k = i % 4;
    if (BITS == 8)
      block[32 * c + 4 * r + k] = (uint8_t)(int8_t)q[i];
    else
      block[32 * (c % 4) + 4 * r + k] |= (uint8_t)q[i] << (c < 4 ? 0 : 4);
  }
  std::memcpy(tail, &scale_16, 2);
  if (BITS == 4) std::memcpy(tail + 16, &minimum_16, 2);
  return same;
}

}  // namespace
