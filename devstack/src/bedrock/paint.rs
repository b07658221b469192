//! Paints landscapes that cost codecs what photographs cost them: gradients, fractal texture, edges and grain.

#![expect(clippy::cast_possible_truncation, reason = "channels are clamped and coordinates are within the picture")]

use image::RgbImage;

use super::noise::{self, ease, lerp, mix, unit};
use super::palette::{PALETTES, Palette, Rgb};

/// One landscape, laid out but not yet painted. Everything in it follows from the key.
struct Scene {
    width: usize,
    height: usize,
    key: u64,
    palette: Palette,
    /// First row that is not sky, where nothing stands in front of it.
    horizon: f32,
    /// First row of the lake, or the height of the picture when there is none.
    shore: usize,
    sun: (f32, f32),
    sun_radius: f32,
    /// Share of the sky that is clouded, 0 ..= 1.
    clouds: f32,
    /// Nearest first.
    hills: Vec<Hill>,
}

/// One ridge line and what stands below it.
struct Hill {
    /// Row of the ridge, per column.
    ridge: Vec<f32>,
    colour: Rgb,
    /// Strength of the light on its slopes, in levels.
    relief: f32,
    /// Strength of leaves and rocks, in levels.
    roughness: f32,
    texture: (usize, usize),
}

/// Paints the landscape of `key`: the same picture for the same key and size, always.
pub(crate) fn paint(width: u32, height: u32, key: u64) -> RgbImage {
    let scene = Scene::lay_out(width as usize, height as usize, key);
    let mut pixels = vec![0_u8; scene.width * scene.height * 3];
    for y in 0..scene.height {
        if y < scene.shore {
            scene.paint_land(&mut pixels, y);
        } else {
            scene.paint_water(&mut pixels, y);
        }
    }
    scene.add_grain(&mut pixels);
    RgbImage::from_raw(width, height, pixels).expect("the buffer has three bytes for every pixel")
}

impl Scene {
    fn lay_out(width: usize, height: usize, key: u64) -> Self {
        let choice = |index: u64| unit(mix(key).wrapping_add(index.wrapping_mul(0xA24B_AED4_963E_E407)));
        let (w, h) = (width as f32, height as f32);
        let palette = PALETTES[(mix(key) % PALETTES.len() as u64) as usize];
        let horizon = h * lerp(0.42, 0.62, choice(1));
        let lake = choice(2) < 0.65;
        let shore = if lake { (horizon + h * lerp(0.10, 0.22, choice(3))) as usize } else { height };
        let ridges = 3 + (choice(4) * 3.0) as usize;
        let hills = (0..ridges)
            .map(|index| {
                // 1 is the nearest, 0 the farthest.
                let nearness = 1.0 - index as f32 / (ridges - 1) as f32;
                let detail = |n: u64| choice(100 + 10 * index as u64 + n);
                let base = lerp(horizon, if lake { shore as f32 } else { h * 0.86 }, nearness * 0.8);
                let swing = h * lerp(0.22, if lake { 0.10 } else { 0.20 }, nearness) * lerp(0.7, 1.2, detail(1));
                let (offset, line) = (detail(2) * 1000.0, detail(3) * 1000.0);
                let stretch = lerp(0.55, 0.35, nearness) * 1536.0 / w;
                let trees = if nearness > 0.6 && detail(4) < 0.6 { h * 0.022 } else { 0.0 };
                let ridge = (0..width)
                    .map(|x| {
                        let along = noise::smooth(offset + x as f32 * stretch, line);
                        // Far ridges are sharp: folded noise has creases where smooth noise has tops.
                        let folded = 1.0 - (2.0 * along - 1.0).abs();
                        let round = noise::smooth(line + x as f32 * stretch * 0.6, offset);
                        let rise = lerp(folded, round, 0.2 + 0.7 * nearness);
                        let tips = noise::rough_row(index * 97 + 3)[x & (noise::SIDE - 1)];
                        base - (rise - 0.35) * swing - tips * trees
                    })
                    .collect();
                Hill {
                    ridge,
                    colour: blend(palette.far, palette.near, ease(nearness)),
                    relief: lerp(180.0, 520.0, nearness),
                    roughness: lerp(80.0, 330.0, nearness * nearness) * lerp(0.7, 1.1, detail(7)),
                    texture: ((detail(5) * 1024.0) as usize, (detail(6) * 1024.0) as usize),
                }
            })
            .collect();
        Self {
            width,
            height,
            key,
            palette,
            horizon,
            shore,
            sun: (w * lerp(0.15, 0.85, choice(5)), horizon - h * lerp(0.02, 0.30, choice(6))),
            sun_radius: w.min(h) * lerp(0.022, 0.045, choice(7)),
            clouds: lerp(0.1, 0.75, choice(8)),
            hills,
        }
    }

    fn paint_land(&self, pixels: &mut [u8], y: usize) {
        let row_bytes = self.width * 3;
        let (above, rest) = pixels.split_at_mut(y * row_bytes);
        let above = y.checked_sub(1).map(|row| &above[row * row_bytes..]);
        let sky = self.sky_of_row(y);
        let cloud_row = noise::row(y * 2 + (self.key & 1023) as usize);
        let wisps = noise::rough_row(y);
        let drift = (mix(self.key ^ 77) & 1023) as usize;
        for (x, pixel) in rest[..row_bytes].chunks_exact_mut(3).enumerate() {
            let hill = self.hills.iter().find(|hill| y as f32 >= hill.ridge[x]);
            let colour = match hill {
                None => self.sky(
                    &sky,
                    x,
                    y,
                    cloud_row[(x + drift) & (noise::SIDE - 1)] + wisps[x & (noise::SIDE - 1)] * 0.11,
                ),
                Some(hill) => {
                    let colour = hill.light(x, y, &self.palette);
                    let cover = y as f32 - hill.ridge[x];
                    match above {
                        // The edge of a ridge lies between two rows: let the row above shine through.
                        Some(above) if cover < 1.0 => {
                            let behind = &above[x * 3..x * 3 + 3];
                            let behind = [f32::from(behind[0]), f32::from(behind[1]), f32::from(behind[2])];
                            blend(behind, colour, cover)
                        }
                        _ => colour,
                    }
                }
            };
            pixel.copy_from_slice(&colour.map(level));
        }
    }

    fn sky_of_row(&self, y: usize) -> Rgb {
        let depth = (y as f32 / self.horizon).min(1.0);
        blend(self.palette.zenith, self.palette.horizon, depth * depth * 0.35 + depth * 0.65)
    }

    fn sky(&self, base: &Rgb, x: usize, y: usize, cloud: f32) -> Rgb {
        let (dx, dy) = (x as f32 - self.sun.0, y as f32 - self.sun.1);
        let reach = self.sun_radius * self.sun_radius;
        let distance = (dx * dx + dy * dy) / reach;
        let glow = 6.0 / (8.0 + distance) + 0.30 / (1.0 + distance * 0.004);
        let disc = ease((1.15 - distance) * 3.5);
        let density = ease((cloud - 0.835 + self.clouds * 0.5) * 3.2);
        let clouded = blend(*base, self.palette.cloud, density * 0.85 * (0.55 + cloud * 0.6).min(1.0));
        blend(clouded, self.palette.sun, (glow * 0.8).max(disc * (1.0 - density * 0.6)).min(1.0))
    }

    /// The lake mirrors the land, shifted by ripples that grow towards the viewer.
    fn paint_water(&self, pixels: &mut [u8], y: usize) {
        let row_bytes = self.width * 3;
        let depth = (y - self.shore) as f32 / (self.height - self.shore) as f32;
        let (land, rest) = pixels.split_at_mut(y * row_bytes);
        // Ripples are long and flat: lines of the tile, read slowly along x and fast along y.
        let ripples = noise::row(((y - self.shore) as f32 * lerp(9.0, 3.0, depth)) as usize);
        let fine = noise::rough_row(y * 3 + 13);
        let mirrored = self.shore as f32 - (y - self.shore) as f32 * lerp(1.0, 0.75, depth);
        let tint = lerp(0.22, 0.58, depth);
        for (x, pixel) in rest[..row_bytes].chunks_exact_mut(3).enumerate() {
            let ripple = ripples[(x / 2) & (noise::SIDE - 1)] - 0.5;
            let detail = fine[(x / 2) & (noise::SIDE - 1)] - 0.5;
            let row = (mirrored - 1.0 + ripple * lerp(10.0, 90.0, depth)).clamp(0.0, (self.shore - 1) as f32) as usize;
            let shift = (x as f32 + detail * lerp(6.0, 40.0, depth)).clamp(0.0, (self.width - 1) as f32) as usize;
            let at = row * row_bytes + shift * 3;
            let mirror = [f32::from(land[at]), f32::from(land[at + 1]), f32::from(land[at + 2])];
            let shade = (ripple * 60.0 + detail * 170.0) * lerp(0.4, 1.0, depth);
            let colour = blend(mirror, self.palette.water, tint);
            pixel.copy_from_slice(&colour.map(|channel| level(channel + shade)));
        }
    }

    fn add_grain(&self, pixels: &mut [u8]) {
        for (y, row) in pixels.chunks_exact_mut(self.width * 3).enumerate() {
            let grain = noise::grain_row(self.key ^ ((y as u64) << 20));
            for part in row.chunks_mut(grain.len()) {
                for (channel, grain) in part.iter_mut().zip(grain) {
                    *channel = channel.saturating_add_signed(*grain);
                }
            }
        }
    }
}

impl Hill {
    /// Colour of the slope at a pixel: the gradient of the texture is lit from the side.
    fn light(&self, x: usize, y: usize, palette: &Palette) -> Rgb {
        let upper = noise::row(y + self.texture.1);
        let lower = noise::row(y + self.texture.1 + 2);
        let column = (x + self.texture.0) & (noise::SIDE - 1);
        let slope = upper[column] - lower[(column + 3) & (noise::SIDE - 1)];
        let rough = noise::rough_row(y * 2 + self.texture.0)[(x + self.texture.1) & (noise::SIDE - 1)] - 0.5;
        // Mist gathers at the foot of a hill.
        let depth = ((y as f32 - self.ridge[x]) * 0.0016).min(0.35);
        let lit = slope * self.relief * 0.5 + (upper[column] - 0.5) * 60.0 + rough * self.roughness;
        let colour = blend(self.colour, palette.far, depth * 0.6);
        [colour[0] + lit, colour[1] + lit, colour[2] + lit * 0.8]
    }
}

fn blend(from: Rgb, to: Rgb, share: f32) -> Rgb {
    [lerp(from[0], to[0], share), lerp(from[1], to[1], share), lerp(from[2], to[2], share)]
}

#[expect(clippy::cast_sign_loss, reason = "clamped to 0 ..= 255 first")]
fn level(channel: f32) -> u8 {
    channel.clamp(0.0, 255.0) as u8
}
