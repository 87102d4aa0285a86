// Functions of single numbers, written so that a loop over them becomes vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "operands.hpp"

namespace {

// e^x to 2e-7 of itself, without branches, so that a loop over it becomes vectors. As in Cephes' expf.
inline float exponential(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float n = std::nearbyint(x * 1.44269504f);
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1;
  int32_t bits = ((int32_t)n + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return p * power;
}

// To 2e-7: Abramowitz and Stegun 1964, 7.1.26.
inline float error_function(float x) {
  const float size = std::fabs(x), t = 1 / (1 + 0.3275911f * size);
  const float p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  return std::copysign(1 - p * exponential(-size * size), x);
}

// In the order of `KINDS` in stack.py.
inline float activate(int kind, float x) {
  switch (kind) {
    case 0: return x / (1 + exponential(-x));                                                      // silu
    case 1: return x / (1 + exponential(-1.5957691216f * (x + 0.044715f * x * x * x)));            // gelu_new
    case 2: return 0.5f * x * (1 + error_function(x * 0.70710678f));                                    // gelu
    case 3: return std::max(x, 0.0f);                                                              // relu
    default: return std::max(x, 0.0f) * std::max(x, 0.0f);                                         // relu2
  }
}

template <int KIND>
void activate_group(float* x) {
#pragma omp simd
  for (int i = 0; i < GROUP; i++) x[i] = activate(KIND, x[i]);
}

void activate_group(int kind, float* x) {
  switch (kind) {
    case 0: activate_group<0>(x); break;
    case 1: activate_group<1>(x); break;
    case 2: activate_group<2>(x); break;
    case 3: activate_group<3>(x); break;
    default: activate_group<4>(x);
  }
}

}  // namespace
