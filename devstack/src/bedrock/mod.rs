//! A stand-in for Amazon Bedrock's InvokeModel with the three Stability text-to-image models.

mod noise;
mod palette;
mod paint;
#[cfg(test)]
mod probe {
    use image::ImageEncoder;
    use image::codecs::png::*;
    #[test]
    fn probe() {
        for key in 0..10u64 {
            let t = std::time::Instant::now();
            let img = super::paint::paint(1536, 1536, key.wrapping_mul(0x9E3779B97F4A7C15));
            let painted = t.elapsed();
            for (n, f) in [("sub", FilterType::Sub), ("up", FilterType::Up), ("paeth", FilterType::Paeth), ("adaptive", FilterType::Adaptive)] {
                let t = std::time::Instant::now();
                let mut out = Vec::new();
                PngEncoder::new_with_quality(&mut out, CompressionType::Fast, f).write_image(&img, 1536, 1536, image::ExtendedColorType::Rgb8).unwrap();
                println!("{key} paint {painted:?} {n} {:?} {} bytes", t.elapsed(), out.len());
                if n == "sub" { std::fs::write(format!("/tmp/paint-{key}.png"), &out).unwrap(); }
            }
            let small = image::imageops::resize(&img, 1024, 1024, image::imageops::FilterType::CatmullRom);
            let w = webp::Encoder::from_rgb(&small, 1024, 1024).encode(80.0);
            let mut out = Vec::new();
            PngEncoder::new_with_quality(&mut out, CompressionType::Best, FilterType::Adaptive).write_image(&small, 1024, 1024, image::ExtendedColorType::Rgb8).unwrap();
            println!("   webp {} png1024 {}", w.len(), out.len());
        }
    }
}
