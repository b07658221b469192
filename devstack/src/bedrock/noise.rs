//! Tileable noise, computed once per process: the fractal texture of hills and clouds, and the grain of film.

#![expect(clippy::cast_possible_truncation, reason = "samples are clamped or masked to the range of their type")]

use std::sync::LazyLock;

/// Side of both tiles, in samples. A power of two, so that coordinates wrap with a mask.
pub(crate) const SIDE: usize = 1024;
const MASK: usize = SIDE - 1;

/// Soft: clouds, ridges, broad light. Each octave is half as strong as the one before.
static SOFT: LazyLock<Vec<f32>> = LazyLock::new(|| fractal(4, 8, 0.5));
/// Rough: leaves, rock, ripples. Stronger in the finest octave than in the coarsest.
static ROUGH: LazyLock<Vec<f32>> = LazyLock::new(|| fractal(16, 6, 1.1));
static GRAIN: LazyLock<Vec<i8>> = LazyLock::new(grain);

/// Mixes 64 bits into 64 others (the finaliser of splitmix64).
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Maps 64 bits to 0.0 .. 1.0.
pub(crate) fn unit(bits: u64) -> f32 {
    (mix(bits) >> 40) as f32 / (1_u32 << 24) as f32
}

/// One row of the soft tile, as 0.0 ..= 1.0.
pub(crate) fn row(y: usize) -> &'static [f32] {
    let start = (y & MASK) * SIDE;
    &SOFT[start..start + SIDE]
}

/// One row of the rough tile, as 0.0 ..= 1.0.
pub(crate) fn rough_row(y: usize) -> &'static [f32] {
    let start = (y & MASK) * SIDE;
    &ROUGH[start..start + SIDE]
}

/// The soft tile between its samples, as 0.0 ..= 1.0; coordinates in samples, not negative.
pub(crate) fn smooth(x: f32, y: f32) -> f32 {
    let (column, line) = (x as usize, y as usize);
    let (across, down) = (x - column as f32, y - line as f32);
    let (upper, lower) = (row(line), row(line + 1));
    let (left, right) = (column & MASK, (column + 1) & MASK);
    let top = upper[left] + (upper[right] - upper[left]) * across;
    let bottom = lower[left] + (lower[right] - lower[left]) * across;
    top + (bottom - top) * down
}

/// One row of grain, three values a pixel, starting at any sample.
pub(crate) fn grain_row(seed: u64) -> &'static [i8] {
    let start = (mix(seed) as usize & MASK) * SIDE + (mix(seed ^ 1) as usize & MASK);
    let start = start.min(GRAIN.len() - 3 * SIDE);
    &GRAIN[start..start + 3 * SIDE]
}

/// Sum of octaves of value noise, each twice as fine as the one before and `persistence` times as strong; the
/// coarsest has `coarsest` lattice cells along one side.
fn fractal(coarsest: usize, octaves: usize, persistence: f32) -> Vec<f32> {
    let mut tile = vec![0.0_f32; SIDE * SIDE];
    let mut strength = 1.0 / (0..octaves).map(|octave| persistence.powi(octave as i32)).sum::<f32>();
    for octave in 0..octaves {
        let cells = coarsest << octave;
        let step = SIDE / cells;
        let at = |x: usize, y: usize| unit(((octave << 40) | ((y % cells) << 20) | (x % cells)) as u64);
        for y in 0..SIDE {
            let (cell_y, down) = (y / step, ease((y % step) as f32 / step as f32));
            for cell_x in 0..cells {
                let left = lerp(at(cell_x, cell_y), at(cell_x, cell_y + 1), down);
                let right = lerp(at(cell_x + 1, cell_y), at(cell_x + 1, cell_y + 1), down);
                let start = y * SIDE + cell_x * step;
                for (offset, sample) in tile[start..start + step].iter_mut().enumerate() {
                    *sample += strength * lerp(left, right, ease(offset as f32 / step as f32));
                }
            }
        }
        strength *= persistence;
    }
    tile
}

/// Grain of less than one level (standard deviation), mostly shared by the channels, as film and upscalers leave it.
fn grain() -> Vec<i8> {
    let mut tile = Vec::with_capacity(SIDE * (SIDE + 3) * 3);
    for index in 0..(SIDE * (SIDE + 3)) as u64 {
        let bits = mix(index ^ 0x5EED);
        let shared = ((bits & 3) as i8 + ((bits >> 8) & 3) as i8 - 3) / 2;
        for channel in 0..3 {
            let own = (bits >> (16 + 8 * channel)) & 31;
            tile.push(shared + i8::from(own == 0) - i8::from(own == 1));
        }
    }
    tile
}

pub(crate) fn lerp(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

/// Smoothstep: 0 to 1 with flat ends.
pub(crate) fn ease(share: f32) -> f32 {
    let share = share.clamp(0.0, 1.0);
    share * share * (3.0 - 2.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tile_wraps_and_varies() {
        let spread = |values: &mut dyn Iterator<Item = f32>| {
            values.fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (low, high) = spread(&mut (0..SIDE).flat_map(|y| row(y).iter().copied()));
        assert!((0.0..0.35).contains(&low) && (0.65..=1.0).contains(&high), "{low} {high}");
        let seam = row(7).iter().zip(row(7 + SIDE)).all(|(a, b)| a == b);
        assert!(seam);
        // Across the seam the samples are as near to each other as anywhere else.
        assert!((0..SIDE).all(|y| (row(y)[0] - row(y)[SIDE - 1]).abs() < 0.1));
        assert!((smooth(5.0, 9.0) - row(9)[5]).abs() < 1e-6);
    }
}
