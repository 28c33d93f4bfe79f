#pragma once
// What forward and backward pass of attention are made of, for CPUs with AVX-512.
//
// Operands are 32-bit words: an f32, or two bf16 next to each other along the summed dimension.
// A left operand has words along its rows, a right operand a row for each word, 16 columns a
// vector.
//
// For the two files of the kernel alone, and without any header of ATen: what is compiled here
// for AVX-512 must not end up in the rest of the program.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "attention.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))
#define AVX512_INLINE AVX512 __attribute__((always_inline)) inline

namespace attention {
namespace {

constexpr int LANES = 16;
// Queries of a tile, in vectors.
constexpr int COLUMNS = 4;
constexpr float LOG2_E = 1.44269504f;

struct F32 {
  using Element = float;
  static constexpr int64_t PER_WORD = 1;
  AVX512_INLINE static __m512 multiply_add(uint32_t a, __m512i b, __m512 c) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32(a)), _mm512_castsi512_ps(b), c);
  }
  // Words `first`… of a row of `width` elements, 0 beyond its end.
  AVX512_INLINE static __m512i load(const Element* row, int64_t first, int64_t width) {
    int64_t left = std::min<int64_t>(LANES, width - first);
    return _mm512_maskz_loadu_epi32(_cvtu32_mask16((1u << left) - 1), row + first);
  }
  // Elements `first`… of a row as lanes.
  AVX512_INLINE static __m512i widen(const Element* row, int64_t first, int64_t width) {
    return load(row, first, width);
  }
  AVX512_INLINE static __m512 floats(const Element* row, int64_t first, int64_t width) {
    return _mm512_castsi512_ps(load(row, first, width));
  }
  AVX512_INLINE static void store(Element* row, int64_t count, __m512 x) {
    _mm512_mask_storeu_ps(row, _cvtu32_mask16((1u << count) - 1), x);
  }
  AVX512_INLINE static void store_lanes(Element* row, __m512i x) { _mm512_storeu_si512(row, x); }
};

struct BF16 {
  using Element = uint16_t;
  static constexpr int64_t PER_WORD = 2;
  AVX512_INLINE static __m512 multiply_add(uint32_t a, __m512i b, __m512 c) {
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
  }
  AVX512_INLINE static __m512i load(const Element* row, int64_t first, int64_t width) {
    int64_t left = std::min<int64_t>(2 * LANES, width - 2 * first);
    uint32_t mask = left == 32 ? ~0u : (1u << left) - 1;
    return _mm512_maskz_loadu_epi16(_cvtu32_mask32(mask), row + 2 * first);
  }
  AVX512_INLINE static __m512i widen(const Element* row, int64_t first, int64_t width) {
    int64_t left = std::min<int64_t>(LANES, width - first);
    __mmask16 mask = _cvtu32_mask16((1u << left) - 1);
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row + first));
  }
  AVX512_INLINE static __m512 floats(const Element* row, int64_t first, int64_t width) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(widen(row, first, width), 16));
  }
  AVX512_INLINE static void store(Element* row, int64_t count, __m512 x) {
    __m256i narrow = (__m256i)_mm512_cvtneps_pbh(x);
    _mm256_mask_storeu_epi16(row, _cvtu32_mask16((1u << count) - 1), narrow);
  }
  AVX512_INLINE static void store_lanes(Element* row, __m512i x) {
    _mm256_storeu_si256((__m256i*)row, _mm512_cvtepi32_epi16(x));
  }
};

// 2^x for x ≤ 0, to 9.2e-8 of it before rounding; 0 for −∞.
AVX512_INLINE __m512 power_of_2(__m512 x) {
  __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 f = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(1.326472720e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.671512640e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.550733743e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402224209e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931469776e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, whole);
}

// Rows and columns of 16 vectors change places.
AVX512_INLINE void transpose(__m512i* r) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// c [R, 16 C] = or += a [R, words] b [words, 16 C]; strides of rows in elements.
template <class T, int R, int C>
AVX512 void multiply(const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb, int64_t words,
                     float* c, int64_t ldc, bool accumulate) {
  __m512 sum[R][C];
  for (int r = 0; r < R; r++)
    for (int j = 0; j < C; j++) sum[r][j] = _mm512_setzero_ps();
  for (int64_t k = 0; k < words; k++) {
    __m512i right[C];
    for (int j = 0; j < C; j++) right[j] = _mm512_load_si512(b + k * ldb + j * LANES);
    for (int r = 0; r < R; r++)
      for (int j = 0; j < C; j++)
        sum[r][j] = T::multiply_add(a[r * lda + k], right[j], sum[r][j]);
  }
  for (int r = 0; r < R; r++)
    for (int j = 0; j < C; j++) {
      float* to = c + r * ldc + j * LANES;
      _mm512_store_ps(to, accumulate ? _mm512_add_ps(sum[r][j], _mm512_load_ps(to)) : sum[r][j]);
    }
}

// As many rows as the registers hold.
constexpr int rows_at_once(int columns) { return columns > 3 ? 6 : 8; }

template <class T, int R, int C>
void multiply_last(int64_t rows, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
                   int64_t words, float* c, int64_t ldc, bool accumulate) {
  if (rows == R) {
    multiply<T, R, C>(a, lda, b, ldb, words, c, ldc, accumulate);
  } else if constexpr (R > 1) {
    multiply_last<T, R - 1, C>(rows, a, lda, b, ldb, words, c, ldc, accumulate);
  }
}

// As `multiply` for any number of rows.
template <class T, int C>
void product(int64_t rows, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
             int64_t words, float* c, int64_t ldc, bool accumulate) {
  constexpr int R = rows_at_once(C);
  for (; rows >= R; rows -= R, a += R * lda, c += R * ldc)
    multiply<T, R, C>(a, lda, b, ldb, words, c, ldc, accumulate);
  multiply_last<T, R - 1, C>(rows, a, lda, b, ldb, words, c, ldc, accumulate);
}

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

template <class T>
typename T::Element* head_of(const Rows& rows, int64_t batch, int64_t head, int64_t width) {
  return static_cast<typename T::Element*>(rows.data) + batch * rows.batch_stride + head * width;
}

// Rows as left operands: to [count, words of a row].
template <class T>
AVX512 void pack_rows(const typename T::Element* from, int64_t stride, int64_t count,
                      int64_t width, uint32_t* to) {
  const int64_t words = (width + T::PER_WORD - 1) / T::PER_WORD;
  for (int64_t i = 0; i < count; i++, from += stride, to += words) {
    to[words - 1] = 0;
    memcpy(to, from, width * sizeof(typename T::Element));
  }
}

// The transpose of rows as left operands, 0 beyond the last row and channel:
// to [width to 16, words].
template <class T>
AVX512 void pack_channels(const typename T::Element* from, int64_t stride, int64_t count,
                          int64_t width, uint32_t* to, int64_t words) {
  auto* out = reinterpret_cast<typename T::Element*>(to);
  const int64_t padded = words * T::PER_WORD;
  for (int64_t m = 0; m < padded; m += LANES)
    for (int64_t j = 0; j < width; j += LANES) {
      __m512i r[LANES];
      for (int64_t i = 0; i < LANES; i++)
        r[i] = m + i < count ? T::widen(from + (m + i) * stride, j, width)
                             : _mm512_setzero_si512();
      transpose(r);
      for (int64_t i = 0; i < LANES; i++) T::store_lanes(out + (j + i) * padded + m, r[i]);
    }
}

// The transpose of 16 C rows, of which `count` are there, as a right operand:
// to [words of a row to 16, 16 C].
template <class T, int C>
AVX512 void pack_across(const typename T::Element* from, int64_t stride, int64_t count,
                        int64_t width, uint32_t* to) {
  const int64_t words = (width + T::PER_WORD - 1) / T::PER_WORD;
  for (int64_t k = 0; k < words; k += LANES)
    for (int c = 0; c < C; c++) {
      __m512i r[LANES];
      for (int64_t i = 0; i < LANES; i++) {
        int64_t n = c * LANES + i;
        r[i] = n < count ? T::load(from + n * stride, k, width) : _mm512_setzero_si512();
      }
      transpose(r);
      for (int64_t i = 0; i < LANES; i++)
        _mm512_store_si512(to + ((k + i) * C + c) * LANES, r[i]);
    }
}

// `from` [width to 16, 16 C] transposed, each query times its share: `count` rows.
template <class T, int C>
AVX512 void write_across(const float* from, const __m512* share, int64_t count, int64_t width,
                         typename T::Element* to, int64_t stride) {
  for (int c = 0; c < C; c++)
    for (int64_t j = 0; j < width; j += LANES) {
      __m512i r[LANES];
      for (int64_t i = 0; i < LANES; i++) {
        __m512 x = _mm512_load_ps(from + ((j + i) * C + c) * LANES);
        r[i] = _mm512_castps_si512(_mm512_mul_ps(x, share[c]));
      }
      transpose(r);
      for (int64_t i = 0; i < LANES && c * LANES + i < count; i++)
        T::store(to + (c * LANES + i) * stride + j, std::min<int64_t>(LANES, width - j),
                 _mm512_castsi512_ps(r[i]));
    }
}

// Two rows of f32 as pairs of bf16: lane n of the result holds (a_n, b_n).
AVX512_INLINE __m512i pair_up(__m512 a, __m512 b) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

// Memory handed out in pieces aligned to a vector.
class Memory {
 public:
  explicit Memory(void* data) : first_(static_cast<uint32_t*>(data)), next_(first_) {}
  uint32_t* words(int64_t count) {
    uint32_t* taken = next_;
    next_ += round_up(count, LANES);
    return taken;
  }
  float* floats(int64_t count) { return reinterpret_cast<float*>(words(count)); }
  size_t bytes() const { return (next_ - first_) * sizeof(uint32_t); }

 private:
  uint32_t *first_, *next_;
};

}  // namespace
}  // namespace attention
