// softmax(scale * q k') v of every head.
//
// Scores are kept transposed, keys down and queries across: a vector holds one key's scores of
// 16 queries, so the softmax is free of horizontal steps, whatever the width of a head, and its
// result is the right operand of the product with the values as it lies. Blocks of keys pass
// through the caches with running maxima and sums (FlashAttention, Dao et al., arXiv 2205.14135).
#include "attention_avx512.h"

namespace attention {
namespace {

// Keys of a block: its scores take 48 KiB.
constexpr int64_t BLOCK = 192;

// What a part keeps: all keys and values of its head, and one tile of queries.
template <class T>
struct Scratch {
  int64_t key_words;    // of a key
  int64_t value_words;  // of one channel of all values
  uint32_t* keys;       // left [keys, key_words]
  uint32_t* values;     // left [width to 16, value_words]
  uint32_t* queries;    // right [key_words to 16, 16 C]
  float* scores;        // [BLOCK and one more, 16 C]
  float* out;           // [width to 16, 16 C]
  size_t bytes;

  Scratch(const Problem& p, void* data) {
    Memory memory(data);
    key_words = (p.width + T::PER_WORD - 1) / T::PER_WORD;
    value_words = round_up(p.keys, LANES * T::PER_WORD) / T::PER_WORD;
    keys = memory.words(p.keys * key_words);
    values = memory.words(round_up(p.width, LANES) * value_words);
    queries = memory.words(round_up(key_words, LANES) * COLUMNS * LANES);
    scores = memory.floats((BLOCK + 1) * COLUMNS * LANES);
    out = memory.floats(round_up(p.width, LANES) * COLUMNS * LANES);
    bytes = memory.bytes();
  }
};

// The scores of a block become weights relative to the running maxima, as a right operand;
// `greatest`, `total` and what `out` holds so far follow.
template <class T, int C>
AVX512 void weigh(int64_t keys, float slope, const Scratch<T>& s, int64_t width, __m512* greatest,
                  __m512* total) {
  const __m512 factor = _mm512_set1_ps(slope);
  __m512 shift[C], less[C], sum[2][C];
  __mmask16 grown = 0;
  for (int c = 0; c < C; c++) {
    __m512 top = greatest[c], other = top;
    for (int64_t m = 0; m < keys; m++) {
      __m512 x = _mm512_load_ps(s.scores + (m * C + c) * LANES);
      (m % 2 ? other : top) = _mm512_max_ps(m % 2 ? other : top, x);
    }
    top = _mm512_max_ps(top, other);
    shift[c] = _mm512_mul_ps(top, factor);
    grown |= _mm512_cmp_ps_mask(top, greatest[c], _CMP_NEQ_UQ);
    // Rounded as the shift before was, so that weights of all blocks fit together. The first
    // block comes from −∞.
    __m512 fall = _mm512_sub_ps(_mm512_mul_ps(greatest[c], factor), shift[c]);
    less[c] = power_of_2(_mm512_max_ps(fall, _mm512_set1_ps(-1000.0f)));
    greatest[c] = top;
    total[c] = _mm512_mul_ps(total[c], less[c]);
    sum[0][c] = sum[1][c] = _mm512_setzero_ps();
  }
  if (grown)
    for (int64_t j = 0; j < width; j++)
      for (int c = 0; c < C; c++) {
        float* x = s.out + (j * C + c) * LANES;
        _mm512_store_ps(x, _mm512_mul_ps(_mm512_load_ps(x), less[c]));
      }
  if constexpr (T::PER_WORD == 1) {
    for (int64_t m = 0; m < keys; m++)
      for (int c = 0; c < C; c++) {
        float* x = s.scores + (m * C + c) * LANES;
        __m512 weight = power_of_2(_mm512_fmsub_ps(_mm512_load_ps(x), factor, shift[c]));
        sum[m % 2][c] = _mm512_add_ps(sum[m % 2][c], weight);
        _mm512_store_ps(x, weight);
      }
  } else {
    for (int64_t m = 0; m < keys; m += 2)
      for (int c = 0; c < C; c++) {
        const float* x = s.scores + (m * C + c) * LANES;
        __m512 a = power_of_2(_mm512_fmsub_ps(_mm512_load_ps(x), factor, shift[c]));
        __m512 b = power_of_2(_mm512_fmsub_ps(_mm512_load_ps(x + C * LANES), factor, shift[c]));
        if (m + 1 == keys) b = _mm512_setzero_ps();
        sum[0][c] = _mm512_add_ps(sum[0][c], a);
        sum[1][c] = _mm512_add_ps(sum[1][c], b);
        _mm512_store_si512(s.scores + (m / 2 * C + c) * LANES, pair_up(a, b));
      }
  }
  for (int c = 0; c < C; c++)
    total[c] = _mm512_add_ps(total[c], _mm512_add_ps(sum[0][c], sum[1][c]));
}

// ln of the softmax's denominators.
template <int C>
AVX512 void write_log_sums(float* to, int64_t count, float scale, const __m512* greatest,
                           const __m512* total) {
  alignas(64) float top[C * LANES], sum[C * LANES];
  for (int c = 0; c < C; c++) {
    _mm512_store_ps(top + c * LANES, greatest[c]);
    _mm512_store_ps(sum + c * LANES, total[c]);
  }
  for (int64_t n = 0; n < count; n++) to[n] = top[n] * scale + std::log(sum[n]);
}

// Queries `first`… `first + 16 C` of a head whose keys and values are packed.
template <class T, int C>
AVX512 void tile(const Problem& p, int64_t batch, int64_t head, int64_t first,
                 const Scratch<T>& s) {
  constexpr int64_t WIDE = C * LANES;
  const int64_t count = std::min(WIDE, p.queries - first);
  pack_across<T, C>(head_of<T>(p.q, batch, head, p.width) + first * p.q.row_stride,
                    p.q.row_stride, count, p.width, s.queries);
  memset(s.out, 0, round_up(p.width, LANES) * WIDE * sizeof(float));
  __m512 greatest[C], total[C], share[C];
  for (int c = 0; c < C; c++) {
    greatest[c] = _mm512_set1_ps(-INFINITY);
    total[c] = _mm512_setzero_ps();
  }
  for (int64_t m = 0; m < p.keys; m += BLOCK) {
    const int64_t keys = std::min(BLOCK, p.keys - m);
    product<T, C>(keys, s.keys + m * s.key_words, s.key_words, s.queries, WIDE, s.key_words,
                  s.scores, WIDE, false);
    weigh<T, C>(keys, p.scale * LOG2_E, s, p.width, greatest, total);
    product<T, C>(p.width, s.values + m / T::PER_WORD, s.value_words,
                  reinterpret_cast<uint32_t*>(s.scores), WIDE,
                  (keys + T::PER_WORD - 1) / T::PER_WORD, s.out, WIDE, true);
  }
  for (int c = 0; c < C; c++) share[c] = _mm512_div_ps(_mm512_set1_ps(1.0f), total[c]);
  write_across<T, C>(s.out, share, count, p.width,
                     head_of<T>(p.out, batch, head, p.width) + first * p.out.row_stride,
                     p.out.row_stride);
  if (p.log_sum)
    write_log_sums<C>(p.log_sum + (batch * p.heads + head) * p.queries + first, count, p.scale,
                      greatest, total);
}

int64_t tiles(const Problem& p) { return round_up(p.queries, COLUMNS * LANES) / (COLUMNS * LANES); }

// A part is some tiles of one head; parts of a head pack its keys and values each.
template <class T>
void run_part(const Problem& p, int64_t index, int64_t parts, void* memory) {
  const Scratch<T> s(p, memory);
  const int64_t cuts = parts / (p.batch * p.heads), cut = index % cuts;
  const int64_t batch = index / cuts / p.heads, head = index / cuts % p.heads;
  pack_rows<T>(head_of<T>(p.k, batch, head, p.width), p.k.row_stride, p.keys, p.width, s.keys);
  pack_channels<T>(head_of<T>(p.v, batch, head, p.width), p.v.row_stride, p.keys, p.width,
                   s.values, s.value_words);
  for (int64_t t = tiles(p) * cut / cuts; t < tiles(p) * (cut + 1) / cuts; t++) {
    const int64_t first = t * COLUMNS * LANES;
    switch (round_up(std::min<int64_t>(COLUMNS * LANES, p.queries - first), LANES) / LANES) {
      case 1: tile<T, 1>(p, batch, head, first, s); break;
      case 2: tile<T, 2>(p, batch, head, first, s); break;
      case 3: tile<T, 3>(p, batch, head, first, s); break;
      default: tile<T, COLUMNS>(p, batch, head, first, s);
    }
  }
}

}  // namespace

bool can(bool is_bf16) {
  __builtin_cpu_init();
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return wide && (!is_bf16 || __builtin_cpu_supports("avx512bf16"));
}

int64_t parts(const Problem& p, int64_t threads) {
  const int64_t heads = p.batch * p.heads;
  // Some more than threads, so that none waits long for the last.
  const int64_t cuts = heads >= 2 * threads ? 1 : (2 * threads + heads - 1) / heads;
  return heads * std::max<int64_t>(1, std::min(cuts, tiles(p)));
}

size_t scratch_bytes(const Problem& p) {
  return p.is_bf16 ? Scratch<BF16>(p, nullptr).bytes : Scratch<F32>(p, nullptr).bytes;
}

void run(const Problem& p, int64_t index, int64_t parts, void* scratch) {
  p.is_bf16 ? run_part<BF16>(p, index, parts, scratch) : run_part<F32>(p, index, parts, scratch);
}

}  // namespace attention
