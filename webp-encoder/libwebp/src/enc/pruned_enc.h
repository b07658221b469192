// The mode search of method 4: a cheap score picks the candidates, and only they are reconstructed.
//
// Included by quant_enc.c, of which it uses the static functions. Method 5 of libwebp reconstructs and measures each of
// the 10 + 4 + 4 prediction modes of a block and then quantises the winner again by a trellis. Here the modes are
// ranked by the Hadamard transform of what they leave over (SATD) plus what it costs to name them; the best are measured
// as before. The two candidates of a 4x4 block lie side by side, so that the two-block functions of the DSP do both at
// once. The trellis runs on the winner of a 4x4 block at once instead of in a second pass over the macroblock: the next
// block is then predicted from what the decoder will see.

// Weights of naming a mode against what it leaves over, in 1/16 of SATD a bit and quantiser step. Found on 14 pictures,
// checked on 19 others (docs/adr/0015).
#define COST_OF_I16 64
#define COST_OF_I4 12
#define COST_OF_UV 8

// A second candidate whose cheap score is more than so many percent of the first's is not measured: it hardly ever wins.
#define WORSE 120

// Squares of the quantiser step of distortion, over the 256 pixels, up to which a 16x16 block without AC coefficients is
// taken without a look at 4x4 blocks, in quarters. Higher is faster and flattens faint texture.
#define FLAT 2

// Share in percent of libwebp's trellis lambda for 4x4 blocks: 100 drops more coefficients, which costs SSIMULACRA2.
#define TRELLIS_I4 85

//------------------------------------------------------------------------------
// Cheap scores

#if defined(WEBP_USE_SSE2)
#include <emmintrin.h>

typedef struct { __m128i row[4]; } SatdSource;

// Takes the two 4x4 blocks of 'src' that lie side by side.
static WEBP_INLINE void LoadPair(const uint8_t* const src, SatdSource* const s) {
  int y;
  for (y = 0; y < 4; ++y) {
    s->row[y] = _mm_unpacklo_epi8(
        _mm_loadl_epi64((const __m128i*)(src + y * BPS)), _mm_setzero_si128());
  }
}

// Sums the absolute Hadamard coefficients of each block of 'ref' minus that of 's'.
static WEBP_INLINE void SatdPair(const SatdSource* const s, const uint8_t* const ref, int out[2]) {
  const __m128i zero = _mm_setzero_si128();
  __m128i a[4], b[4];
  int y;
  for (y = 0; y < 4; ++y) {
    const __m128i r = _mm_loadl_epi64((const __m128i*)(ref + y * BPS));
    a[y] = _mm_sub_epi16(_mm_unpacklo_epi8(r, zero), s->row[y]);
  }
  b[0] = _mm_add_epi16(a[0], a[2]);
  b[1] = _mm_add_epi16(a[1], a[3]);
  b[2] = _mm_sub_epi16(a[1], a[3]);
  b[3] = _mm_sub_epi16(a[0], a[2]);
  a[0] = _mm_add_epi16(b[0], b[1]);
  a[1] = _mm_add_epi16(b[3], b[2]);
  a[2] = _mm_sub_epi16(b[3], b[2]);
  a[3] = _mm_sub_epi16(b[0], b[1]);
  // Transpose each half.
  b[0] = _mm_unpacklo_epi16(a[0], a[1]);
  b[1] = _mm_unpacklo_epi16(a[2], a[3]);
  b[2] = _mm_unpackhi_epi16(a[0], a[1]);
  b[3] = _mm_unpackhi_epi16(a[2], a[3]);
  a[0] = _mm_unpacklo_epi32(b[0], b[1]);
  a[1] = _mm_unpackhi_epi32(b[0], b[1]);
  a[2] = _mm_unpacklo_epi32(b[2], b[3]);
  a[3] = _mm_unpackhi_epi32(b[2], b[3]);
  b[0] = _mm_unpacklo_epi64(a[0], a[2]);
  b[1] = _mm_unpackhi_epi64(a[0], a[2]);
  b[2] = _mm_unpacklo_epi64(a[1], a[3]);
  b[3] = _mm_unpackhi_epi64(a[1], a[3]);
  a[0] = _mm_add_epi16(b[0], b[2]);
  a[1] = _mm_add_epi16(b[1], b[3]);
  a[2] = _mm_sub_epi16(b[1], b[3]);
  a[3] = _mm_sub_epi16(b[0], b[2]);
  // The last butterfly is not made: |x + y| + |x - y| = 2 * max(|x|, |y|).
  for (y = 0; y < 4; ++y) a[y] = _mm_max_epi16(a[y], _mm_sub_epi16(zero, a[y]));
  a[0] = _mm_add_epi16(_mm_max_epi16(a[0], a[1]), _mm_max_epi16(a[3], a[2]));
  a[0] = _mm_madd_epi16(a[0], _mm_set1_epi16(2));
  a[0] = _mm_add_epi32(a[0], _mm_shuffle_epi32(a[0], _MM_SHUFFLE(2, 3, 0, 1)));
  out[0] = _mm_cvtsi128_si32(a[0]);
  out[1] = _mm_cvtsi128_si32(_mm_unpackhi_epi64(a[0], a[0]));
}

#else

typedef struct { const uint8_t* src; } SatdSource;

static void LoadPair(const uint8_t* const src, SatdSource* const s) {
  s->src = src;
}

static void SatdPair(const SatdSource* const s, const uint8_t* const ref, int out[2]) {
  int block, x, y;
  for (block = 0; block < 2; ++block) {
    const uint8_t* const a = s->src + 4 * block;
    const uint8_t* const b = ref + 4 * block;
    int d[16], sum = 0;
    for (y = 0; y < 4; ++y) {
      const int d0 = b[0 + y * BPS] - a[0 + y * BPS], d1 = b[1 + y * BPS] - a[1 + y * BPS];
      const int d2 = b[2 + y * BPS] - a[2 + y * BPS], d3 = b[3 + y * BPS] - a[3 + y * BPS];
      const int b0 = d0 + d2, b1 = d1 + d3, b2 = d1 - d3, b3 = d0 - d2;
      d[y * 4 + 0] = b0 + b1;
      d[y * 4 + 1] = b3 + b2;
      d[y * 4 + 2] = b3 - b2;
      d[y * 4 + 3] = b0 - b1;
    }
    for (x = 0; x < 4; ++x) {
      const int b0 = d[x] + d[x + 8], b1 = d[x + 4] + d[x + 12];
      const int b2 = d[x + 4] - d[x + 12], b3 = d[x] - d[x + 8];
      sum += abs(b0 + b1) + abs(b3 + b2) + abs(b3 - b2) + abs(b0 - b1);
    }
    out[block] = sum;
  }
}

#endif  // WEBP_USE_SSE2

// Leaves the two modes with the least score in 'order', the better one first. Returns how many of them to measure.
static int TwoBest(const int score[], int modes, int order[2]) {
  int i, best = 0, second = 1;
  if (score[1] < score[0]) {
    best = 1;
    second = 0;
  }
  for (i = 2; i < modes; ++i) {
    if (score[i] < score[best]) {
      second = best;
      best = i;
    } else if (score[i] < score[second]) {
      second = i;
    }
  }
  order[0] = best;
  order[1] = second;
  return ((int64_t)score[second] * 100 > (int64_t)score[best] * WORSE) ? 1 : 2;
}

// Ranks the modes of a 16x16 luma or 16x8 chroma block.
static int TwoBestOfMacroblock(const uint8_t* const src, const uint8_t* const preds,
                               const uint16_t offsets[NUM_PRED_MODES], int height,
                               const uint16_t costs[NUM_PRED_MODES], int lambda, int order[2]) {
  int score[NUM_PRED_MODES] = { 0, 0, 0, 0 };
  int x, y, mode, out[2];
  for (y = 0; y < height; y += 4) {
    for (x = 0; x < 16; x += 8) {
      SatdSource s;
      LoadPair(src + y * BPS + x, &s);
      for (mode = 0; mode < NUM_PRED_MODES; ++mode) {
        SatdPair(&s, preds + offsets[mode] + y * BPS + x, out);
        score[mode] += out[0] + out[1];
      }
    }
  }
  for (mode = 0; mode < NUM_PRED_MODES; ++mode) {
    score[mode] = score[mode] * 16 + ((costs[mode] * lambda) >> 8);
  }
  return TwoBest(score, NUM_PRED_MODES, order);
}

//------------------------------------------------------------------------------
// The searches, each after its namesake in quant_enc.c

static void PickPrunedIntra16(VP8EncIterator* WEBP_RESTRICT const it,
                              VP8ModeScore* WEBP_RESTRICT rd) {
  VP8SegmentInfo* const dqm = &it->enc->dqm[it->mb->segment];
  const int lambda = dqm->lambda_i16;
  const int tlambda = dqm->tlambda;
  const uint8_t* const src = it->yuv_in + Y_OFF_ENC;
  VP8ModeScore rd_tmp;
  VP8ModeScore* rd_cur = &rd_tmp;
  VP8ModeScore* rd_best = rd;
  int is_flat = IsFlatSource16(src);
  int i, count, order[2];

  count = TwoBestOfMacroblock(src, it->yuv_p, VP8I16ModeOffsets, 16, VP8FixedCostsI16, COST_OF_I16 * dqm->y1.q[1],
                              order);
  for (i = 0; i < count; ++i) {
    const int mode = order[i];
    uint8_t* const tmp_dst = it->yuv_out2 + Y_OFF_ENC;
    rd_cur->mode_i16 = mode;
    rd_cur->nz = ReconstructIntra16(it, rd_cur, tmp_dst, mode);
    rd_cur->D = VP8SSE16x16(src, tmp_dst);
    rd_cur->SD = tlambda ? MULT_8B(tlambda, VP8TDisto16x16(src, tmp_dst, kWeightY)) : 0;
    rd_cur->H = VP8FixedCostsI16[mode];
    rd_cur->R = VP8GetCostLuma16(it, rd_cur);
    if (is_flat) {
      is_flat = IsFlat(rd_cur->y_ac_levels[0], 16, FLATNESS_LIMIT_I16);
      if (is_flat) {
        rd_cur->D *= 2;
        rd_cur->SD *= 2;
      }
    }
    SetRDScore(lambda, rd_cur);
    if (i == 0 || rd_cur->score < rd_best->score) {
      SwapModeScore(&rd_cur, &rd_best);
      SwapOut(it);
    }
  }
  if (rd_best != rd) memcpy(rd, rd_best, sizeof(*rd));
  SetRDScore(dqm->lambda_mode, rd);
  VP8SetIntra16Mode(it, rd->mode_i16);
  if ((rd->nz & 0x100ffff) == 0x1000000 && rd->D > dqm->min_disto) {
    StoreMaxDelta(dqm, rd->y_dc_levels);
  }
}

// Ranks the modes of a 4x4 block and puts the predictions of the two best side by side into 'pair'.
static int TwoBestOfBlock(const uint8_t* const src_pair, const uint8_t* const preds,
                          const uint16_t costs[NUM_BMODES], int lambda, uint8_t* const pair, int order[2]) {
  int score[NUM_BMODES];
  SatdSource s;
  int mode, y, count;
  LoadPair(src_pair, &s);
  // Modes 0 and 1, 2 and 3, ... are neighbours in memory.
  for (mode = 0; mode < NUM_BMODES; mode += 2) {
    SatdPair(&s, preds + VP8I4ModeOffsets[mode], &score[mode]);
  }
  for (mode = 0; mode < NUM_BMODES; ++mode) {
    score[mode] = score[mode] * 16 + ((costs[mode] * lambda) >> 8);
  }
  count = TwoBest(score, NUM_BMODES, order);
  for (y = 0; y < 4; ++y) {
    memcpy(pair + y * BPS, preds + VP8I4ModeOffsets[order[0]] + y * BPS, 4);
    memcpy(pair + y * BPS + 4, preds + VP8I4ModeOffsets[order[1]] + y * BPS, 4);
  }
  return count;
}

static int PickPrunedIntra4(VP8EncIterator* WEBP_RESTRICT const it,
                            VP8ModeScore* WEBP_RESTRICT const rd) {
  const VP8Encoder* const enc = it->enc;
  const VP8SegmentInfo* const dqm = &enc->dqm[it->mb->segment];
  const int lambda = dqm->lambda_i4;
  const int tlambda = dqm->tlambda;
  const uint8_t* const src0 = it->yuv_in + Y_OFF_ENC;
  uint8_t* const best_blocks = it->yuv_out2 + Y_OFF_ENC;
  int total_header_bits = 0;
  VP8ModeScore rd_best;
  // The source twice, two predictions, and what the two decode to; rows of BPS as everywhere.
  uint8_t pairs_mem[3 * 4 * BPS + WEBP_ALIGN_CST];
  uint8_t* const src_pair = (uint8_t*)WEBP_ALIGN(pairs_mem);
  uint8_t* const ref_pair = src_pair + 8;
  uint8_t* const dst_pair = src_pair + 16;

  if (enc->max_i4_header_bits == 0) return 0;
  if ((rd->nz & 0xffff) == 0 && rd->D * 4 <= (score_t)FLAT * dqm->y1.q[1] * dqm->y1.q[1]) return 0;

  InitScore(&rd_best);
  rd_best.H = 211;  // '211' is the value of VP8BitCost(0, 145)
  SetRDScore(dqm->lambda_mode, &rd_best);
  VP8IteratorStartI4(it);
  do {
    const uint8_t* const src = src0 + VP8Scan[it->i4];
    const uint16_t* const mode_costs = GetCostModeI4(it, rd->modes_i4);
    uint8_t* const best_block = best_blocks + VP8Scan[it->i4];
    VP8ModeScore rd_i4;
    int16_t coeffs[32], levels[32], dequantized[32];
    int order[2];
    int i, y, count, nz, best = -1;

    InitScore(&rd_i4);
    MakeIntra4Preds(it);
    for (y = 0; y < 4; ++y) {
      memcpy(src_pair + y * BPS, src + y * BPS, 4);
      memcpy(src_pair + y * BPS + 4, src + y * BPS, 4);
    }
    count = TwoBestOfBlock(src_pair, it->yuv_p, mode_costs, COST_OF_I4 * dqm->y1.q[1], ref_pair, order);

    VP8FTransform2(src_pair, ref_pair, coeffs);
    memcpy(dequantized, coeffs, sizeof(coeffs));
    nz = VP8EncQuantize2Blocks(dequantized, levels, &dqm->y1);
    VP8ITransform(ref_pair, dequantized, dst_pair, 1);
    for (i = 0; i < count; ++i) {
      const int mode = order[i];
      const uint8_t* const dst = dst_pair + 4 * i;
      VP8ModeScore rd_tmp;
      rd_tmp.nz = (nz >> i) & 1;
      rd_tmp.D = VP8SSE4x4(src, dst);
      rd_tmp.SD = tlambda ? MULT_8B(tlambda, VP8TDisto4x4(src, dst, kWeightY)) : 0;
      rd_tmp.H = mode_costs[mode];
      rd_tmp.R = (mode > 0 && IsFlat(levels + 16 * i, 1, FLATNESS_LIMIT_I4)) ? FLATNESS_PENALTY : 0;
      SetRDScore(lambda, &rd_tmp);
      if (best >= 0 && rd_tmp.score >= rd_i4.score) continue;
      rd_tmp.R += VP8GetCostLuma4(it, levels + 16 * i);
      SetRDScore(lambda, &rd_tmp);
      if (best < 0 || rd_tmp.score < rd_i4.score) {
        CopyScore(&rd_i4, &rd_tmp);
        best = i;
      }
    }
    SetRDScore(dqm->lambda_mode, &rd_i4);
    AddScore(&rd_best, &rd_i4);
    if (rd_best.score >= rd->score) return 0;
    total_header_bits += (int)rd_i4.H;
    if (total_header_bits > enc->max_i4_header_bits) return 0;

    {
      const int ctx = it->top_nz[it->i4 & 3] + it->left_nz[it->i4 >> 2];
      nz = TrellisQuantizeBlock(enc, coeffs + 16 * best, rd_best.y_ac_levels[it->i4], ctx, TYPE_I4_AC, &dqm->y1,
                                dqm->lambda_trellis_i4 * TRELLIS_I4 / 100);
      VP8ITransform(ref_pair + 4 * best, coeffs + 16 * best, best_block, 0);
    }
    rd_best.nz = (rd_best.nz & ~(1u << it->i4)) | ((uint32_t)nz << it->i4);
    rd->modes_i4[it->i4] = order[best];
    it->top_nz[it->i4 & 3] = it->left_nz[it->i4 >> 2] = nz;
  } while (VP8IteratorRotateI4(it, best_blocks));

  CopyScore(rd, &rd_best);
  VP8SetIntra4Mode(it, rd->modes_i4);
  SwapOut(it);
  memcpy(rd->y_ac_levels, rd_best.y_ac_levels, sizeof(rd->y_ac_levels));
  return 1;
}

// Of chroma only the best by the cheap score is made: the second wins too seldom to pay for itself.
static void PickPrunedUV(VP8EncIterator* WEBP_RESTRICT const it,
                         VP8ModeScore* WEBP_RESTRICT const rd) {
  const VP8SegmentInfo* const dqm = &it->enc->dqm[it->mb->segment];
  const uint8_t* const src = it->yuv_in + U_OFF_ENC;
  uint8_t* const dst = it->yuv_out + U_OFF_ENC;
  VP8ModeScore rd_uv;
  int order[2];

  (void)TwoBestOfMacroblock(src, it->yuv_p, VP8UVModeOffsets, 8, VP8FixedCostsUV, COST_OF_UV * dqm->uv.q[1], order);
  InitScore(&rd_uv);
  rd->mode_uv = order[0];
  rd_uv.nz = ReconstructUV(it, rd, dst, order[0]);
  // Its score decides nothing any more; distortion and header bits go into the statistics of the pass.
  rd_uv.D = VP8SSE16x8(src, dst);
  rd_uv.H = VP8FixedCostsUV[order[0]];
  rd_uv.score = 0;
  VP8SetIntraUVMode(it, rd->mode_uv);
  AddScore(rd, &rd_uv);
  if (it->top_derr != NULL) StoreDiffusionErrors(it, rd);
}

// Chooses the modes of a macroblock and quantises it; the predictions of 16x16 and chroma are made.
static void DecimatePruned(VP8EncIterator* WEBP_RESTRICT const it,
                           VP8ModeScore* WEBP_RESTRICT const rd) {
  it->do_trellis = 0;
  PickPrunedIntra16(it, rd);
  if (!PickPrunedIntra4(it, rd)) {
    it->do_trellis = 1;
    rd->nz = ReconstructIntra16(it, rd, it->yuv_out + Y_OFF_ENC, rd->mode_i16);
    it->do_trellis = 0;
  }
  PickPrunedUV(it, rd);
}
