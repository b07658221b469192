//! Lossy WebP by libwebp with a pruned mode search: the one crate that calls C.
//!
//! Method 4 is ours: see `libwebp/src/enc/pruned_enc.h` and docs/adr/0015. The other methods are libwebp's, bit by bit.

mod memory;

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use thiserror::Error;

/// Longest side in pixels: the format has 14 bits for it.
const MAX_SIDE: u32 = 16_383;

/// Why a picture was not encoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The pixels do not fit the dimensions, or the format does not hold them.
    #[error("{bytes} bytes are no picture of {width}x{height}: give 3 a pixel, and sides of 1 to 16383")]
    Dimensions { width: u32, height: u32, bytes: usize },
    /// Quality is 0 to 100 and method 0 to 6.
    #[error("libwebp refuses quality {quality} with method {method}: give 0 to 100 and 0 to 6")]
    Settings { quality: String, method: u8 },
    /// libwebp's own code, `VP8_ENC_ERROR_...`; 1 is want of memory.
    #[error("libwebp says error {0}")]
    Libwebp(c_int),
}

/// A WebP file in libwebp's own buffer.
#[derive(Debug)]
pub struct Encoded {
    data: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer is nobody else's, and is only read until it is freed.
#[expect(unsafe_code, reason = "a buffer without interior mutability may be read and freed on any thread")]
unsafe impl Send for Encoded {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a buffer without interior mutability may be read on any thread")]
unsafe impl Sync for Encoded {}

#[expect(unsafe_code, reason = "the two functions of shim.c")]
unsafe extern "C" {
    fn pruned_webp_encode(
        rgb: *const u8,
        width: c_int,
        height: c_int,
        quality: f32,
        method: c_int,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> c_int;
    fn pruned_webp_free(data: *mut u8);
}

/// Encodes `rgb` (three bytes a pixel, row by row) without metadata. `quality` is 0 to 100, `method` 0 to 6.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode(rgb: &[u8], width: u32, height: u32, quality: f32, method: u8) -> Result<Encoded, EncodeError> {
    let wrong = || EncodeError::Dimensions { width, height, bytes: rgb.len() };
    let sides = 1..=MAX_SIDE;
    if !sides.contains(&width) || !sides.contains(&height) {
        return Err(wrong());
    }
    // Both fit into 14 bits.
    if rgb.len() as u64 != u64::from(width) * u64::from(height) * 3 {
        return Err(wrong());
    }
    let side = |side: u32| c_int::try_from(side).map_err(|_| wrong());
    let refused = || EncodeError::Settings { quality: quality.to_string(), method };
    // libwebp compares, and a NaN passes every comparison.
    if !quality.is_finite() {
        return Err(refused());
    }
    let (mut data, mut len) = (ptr::null_mut(), 0);
    // SAFETY: `rgb` holds `height` rows of 3 * `width` bytes, as was checked, and is only read. The two results are
    // written before 0 is returned, and nothing keeps a pointer.
    #[expect(unsafe_code, reason = "the call into C")]
    let code = unsafe {
        pruned_webp_encode(
            rgb.as_ptr(),
            side(width)?,
            side(height)?,
            quality,
            method.into(),
            &raw mut data,
            &raw mut len,
        )
    };
    match (code, NonNull::new(data)) {
        (0, Some(data)) => Ok(Encoded { data, len }),
        (-1, _) => Err(refused()),
        (code, _) => Err(EncodeError::Libwebp(code)),
    }
}

impl AsRef<[u8]> for Encoded {
    #[expect(unsafe_code, reason = "the buffer came from C")]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: libwebp wrote `len` bytes there, and they live until `drop`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl Drop for Encoded {
    #[expect(unsafe_code, reason = "the buffer came from C")]
    fn drop(&mut self) {
        // SAFETY: it came from libwebp's allocator and is freed once.
        unsafe { pruned_webp_free(self.data.as_ptr()) }
    }
}
