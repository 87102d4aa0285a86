// A token drawn from its distribution.
#pragma once

#include "functions.hpp"

namespace {

// shares[i] = e^((x[i] - largest) / temperature), zero for what is less than `worst`. sums: of every GROUP of them, so
// that a place on the line is found without walking all of it. Returns the sum of all.
double shares_of(const float* x, int n, float largest, float temperature, float worst, float* shares, double* sums) {
  const auto group = [&](int start, int size) {
    const float* from = x + start;
    float* into = shares + start;
    float sum = 0;
#pragma omp simd
    for (int i = 0; i < size; i++) {
      const float at = (from[i] - largest) / temperature;
      into[i] = from[i] < worst || at < -87 ? 0 : exponential(at);
    }
#pragma omp simd reduction(+ : sum)  // by itself: of two arrays only one begins where all of its kind do
    for (int i = 0; i < size; i++) sum += into[i];
    return sum;
  };
  double all = 0;
  for (int start = 0; start < n; start += GROUP)  // with a size that the compiler knows: two thirds of the time
    all += sums[start / GROUP] = start + GROUP <= n ? group(start, GROUP) : group(start, n - start);
  return all;
}

int where_it_lands(double point, int n, const float* shares, const double* sums) {
  double line = 0;
  int start = 0;
  for (; start + GROUP < n && line + sums[start / GROUP] <= point; start += GROUP) line += sums[start / GROUP];
  int last = start;  // that can be drawn: what is left of the point may be a rounding error
  for (int i = start; i < std::min(n, start + GROUP); i++) {
    if (shares[i] > 0) last = i;
    if ((line += shares[i]) > point) break;
  }
  return last;
}

float largest_of(const float* x, int n) {
  float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < n; i++) largest = std::max(largest, x[i]);
  return largest;
}

}  // namespace
