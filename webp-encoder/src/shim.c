// The one entry into libwebp, and what takes the place of the parts that are left out: lossless, alpha, ARGB.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sharpyuv/sharpyuv.h"
#include "sharpyuv/sharpyuv_csp.h"
#include "src/dsp/dsp.h"
#include "src/dsp/lossless.h"
#include "src/enc/vp8i_enc.h"
#include "src/enc/vp8li_enc.h"
#include "src/utils/palette.h"
#include "src/webp/encode.h"

// Encodes 'rgb' (rows of 3 * width bytes). Returns 0 and the file in 'data', to be freed by pruned_webp_free, or libwebp's
// error code; -1 when the settings are out of range.
int pruned_webp_encode(const uint8_t* rgb, int width, int height, float quality, int method, uint8_t** data,
                       size_t* size) {
  WebPConfig config;
  WebPPicture picture;
  WebPMemoryWriter writer;
  int ok;

  if (!WebPConfigInit(&config) || !WebPPictureInit(&picture)) return -1;
  config.quality = quality;
  config.method = method;
  if (!WebPValidateConfig(&config)) return -1;
  WebPMemoryWriterInit(&writer);
  picture.use_argb = 0;   // planes at once, without a copy of the picture as ARGB
  picture.width = width;
  picture.height = height;
  picture.writer = WebPMemoryWrite;
  picture.custom_ptr = &writer;
  ok = WebPPictureImportRGB(&picture, rgb, 3 * width) && WebPEncode(&config, &picture);
  WebPPictureFree(&picture);
  if (!ok) {
    WebPMemoryWriterClear(&writer);
    return picture.error_code;
  }
  *data = writer.mem;
  *size = writer.size;
  return 0;
}

void pruned_webp_free(uint8_t* data) {
  WebPSafeFree(data);
}

//------------------------------------------------------------------------------
// Left out. Reached only by pictures with alpha, and by settings that pruned_webp_encode does not make.

void VP8EncInitAlpha(VP8Encoder* const enc) {
  enc->has_alpha = 0;
  enc->alpha_data = NULL;
  enc->alpha_data_size = 0;
}
int VP8EncStartAlpha(VP8Encoder* const enc) { (void)enc; return 1; }
int VP8EncFinishAlpha(VP8Encoder* const enc) { (void)enc; return 1; }
int VP8EncDeleteAlpha(VP8Encoder* const enc) { (void)enc; return 1; }

int VP8LEncodeImage(const WebPConfig* const config, const WebPPicture* const picture) {
  (void)config;
  return WebPEncodingSetError(picture, VP8_ENC_ERROR_INVALID_CONFIGURATION);
}

void WebPReplaceTransparentPixels(WebPPicture* const picture, uint32_t color) { (void)picture; (void)color; }
void WebPCleanupTransparentArea(WebPPicture* picture) { (void)picture; }
void WebPInitAlphaProcessing(void) {}
int (*WebPExtractAlpha)(const uint8_t* WEBP_RESTRICT, int, int, int, uint8_t* WEBP_RESTRICT, int);
int (*WebPHasAlpha8b)(const uint8_t*, int);
int (*WebPHasAlpha32b)(const uint8_t*, int);
void (*WebPPackRGB)(const uint8_t* WEBP_RESTRICT, const uint8_t* WEBP_RESTRICT, const uint8_t* WEBP_RESTRICT, int, int,
                    uint32_t* WEBP_RESTRICT);
WebPUpsampleLinePairFunc WebPGetLinePairConverter(int alpha_is_last) { (void)alpha_is_last; return NULL; }

VP8LConvertFunc VP8LConvertBGRAToRGBA;
void VP8LDspInit(void) {}

int GetColorPalette(const struct WebPPicture* const picture, uint32_t* const palette) {
  (void)picture; (void)palette;
  return 0;
}

void SharpYuvInit(VP8CPUInfo cpu_info_func) { (void)cpu_info_func; }
const SharpYuvConversionMatrix* SharpYuvGetConversionMatrix(SharpYuvMatrixType type) { (void)type; return NULL; }
int SharpYuvConvert(const void* r, const void* g, const void* b, int rgb_step, int rgb_stride, int rgb_bit_depth,
                    void* y, int y_stride, void* u, int u_stride, void* v, int v_stride, int yuv_bit_depth, int width,
                    int height, const SharpYuvConversionMatrix* matrix) {
  (void)r; (void)g; (void)b; (void)rgb_step; (void)rgb_stride; (void)rgb_bit_depth; (void)y; (void)y_stride; (void)u;
  (void)u_stride; (void)v; (void)v_stride; (void)yuv_bit_depth; (void)width; (void)height; (void)matrix;
  return 0;
}
